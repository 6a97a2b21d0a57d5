//! TLS to a server, as Python's `ssl` has it: who is trusted, what proves us, and what went wrong
//! in words.

use super::error::{Error, StoreErrorKind};
use super::url::{Server, Tls};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore,
    SignatureScheme,
};
use std::io;
use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// What is known of both sides before a connection is opened.
///
/// # Errors
/// A file cannot be read, or has nothing of what it should have.
pub(super) fn config(tls: &Tls) -> Result<Arc<ClientConfig>, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let wrong = |error: rustls::Error| Error::misuse(format!("TLS: {error}"));
    let verifier: Arc<dyn ServerCertVerifier> = match tls.unverified {
        true => Arc::new(Anybody(provider.clone())),
        false => Arc::new(Trusted::new(tls, &provider)?),
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(wrong)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let config = match &tls.identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let secret = PrivateKeyDer::from_pem_slice(&read(key)?);
            let secret = secret.map_err(|_| lacks(key, "no private key in PEM form in it"))?;
            let chain = certificates(certificate)?;
            builder.with_client_auth_cert(chain, secret).map_err(|error| {
                lacks(certificate, &format!("not usable with {}: {error}", key.display()))
            })?
        }
    };
    Ok(Arc::new(config))
}

/// Opens a connection to `server`, which listens at `host` and `port`.
///
/// # Errors
/// Names the server; says whose certificate was refused, and why.
pub(super) async fn connect(
    server: &Server,
    (host, port): (&str, u16),
    tls: &Tls,
    config: Arc<ClientConfig>,
) -> Result<TlsStream<TcpStream>, Error> {
    let failed = |why: String| Error::of(StoreErrorKind::Busy, format!("{server}: {why}"));
    let name = ServerName::try_from(host.to_string())
        .map_err(|_| failed(format!("{host:?} is no name that a certificate may have")))?;
    let stream =
        TcpStream::connect((host, port)).await.map_err(|error| failed(error.to_string()))?;
    // A small command does not wait for company.
    stream.set_nodelay(true).map_err(|error| failed(error.to_string()))?;
    let opened = TlsConnector::from(config).connect(name, stream).await;
    opened.map_err(|error| failed(explain(&error, host, tls)))
}

/// What a failed handshake means.
fn explain(error: &io::Error, host: &str, tls: &Tls) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let Some(inner) = inner else { return format!("TLS: {error}") };
    let rustls::Error::InvalidCertificate(why) = inner else {
        return match inner {
            rustls::Error::InvalidMessage(_) => {
                "who answers there does not speak TLS; write redis:// if that is meant".into()
            }
            rustls::Error::AlertReceived(alert) => {
                format!(
                    "the server ended the TLS handshake ({alert:?}); does it want ssl_certfile and ssl_keyfile?"
                )
            }
            other => format!("TLS: {other}"),
        };
    };
    let trusted = tls.authorities.as_deref().map(Path::display);
    let authorities = trusted.map_or("this system".to_string(), |file| file.to_string());
    match why {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the server's certificate has expired; renew it there".into()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the server's certificate is not valid yet; compare the clocks of both hosts".into()
        }
        CertificateError::UnknownIssuer => format!(
            "the server's certificate is of no authority that {authorities} has; name a file with that \
             authority's certificate in ssl_ca_certs"
        ),
        CertificateError::NotValidForName => {
            format!("the server's certificate is for another host than {host}")
        }
        CertificateError::NotValidForNameContext { presented, .. } => format!(
            "the server's certificate is for another host than {host}: {}",
            if presented.is_empty() { "it names none".into() } else { presented.join(", ") }
        ),
        other => format!("the server's certificate is refused: {other}"),
    }
}

fn lacks(path: &Path, what: &str) -> Error {
    Error::misuse(format!("{}: {what}", path.display()))
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|error| lacks(path, &error.to_string()))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(path)?).collect();
    match found {
        Ok(all) if !all.is_empty() => Ok(all),
        _ => Err(lacks(path, "no certificate in PEM form in it")),
    }
}

/// Takes certificates of the trusted authorities, and those that are named themselves: a
/// certificate that is its own authority is one of both, which the library alone refuses.
#[derive(Debug)]
struct Trusted {
    chains: Arc<WebPkiServerVerifier>,
    named: Vec<CertificateDer<'static>>,
}

impl Trusted {
    fn new(tls: &Tls, provider: &Arc<CryptoProvider>) -> Result<Trusted, Error> {
        let mut roots = RootCertStore::empty();
        let named = match &tls.authorities {
            Some(path) => {
                let all = certificates(path)?;
                for certificate in &all {
                    let added = roots.add(certificate.clone());
                    added.map_err(|error| lacks(path, &format!("a certificate that {error}")))?;
                }
                all
            }
            None => {
                // Of those of the system one that cannot be read makes the others no worse.
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                Vec::new()
            }
        };
        let built =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build();
        let chains = built.map_err(|error| {
            let hint = "name a file with an authority's certificate in ssl_ca_certs";
            Error::misuse(format!("TLS: this system trusts no authority ({error}); {hint}"))
        })?;
        Ok(Trusted { chains, named })
    }
}

/// Is this the refusal of an authority's certificate as a server's? The dates have been looked at
/// before.
fn is_own_authority(error: &rustls::Error) -> bool {
    let rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(inner))) = error
    else {
        return false;
    };
    matches!(inner.downcast_ref(), Some(webpki::Error::CaUsedAsEndEntity))
}

impl ServerCertVerifier for Trusted {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.chains.verify_server_cert(certificate, others, name, ocsp, now) {
            Err(error) if is_own_authority(&error) && self.named.contains(certificate) => {
                let parsed = ParsedCertificate::try_from(certificate)?;
                rustls::client::verify_server_name(&parsed, name)?;
                Ok(ServerCertVerified::assertion())
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chains.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chains.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}

/// Takes any certificate (`ssl_cert_reqs=none`); its owner still has to have the key.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
