//! What Celery's library signs is verified, and nothing else. The keys are those of
//! `tests/golden/auth/record.py`.

use super::*;
use crate::clock;

macro_rules! golden {
    ($name:literal) => {
        include_str!(concat!("../../../tests/golden/auth/", $name))
    };
}

fn named(name: &str, text: &str) -> (String, String) {
    (name.into(), text.into())
}

fn store() -> Vec<(String, String)> {
    vec![
        named("ours.pem", golden!("certs/ours.pem")),
        named("theirs.pem", golden!("certs/theirs.pem")),
    ]
}

fn keys_of(digest: &str, store: Vec<(String, String)>) -> Keys {
    let files = KeyFiles {
        key: Some(named("ours.key", golden!("ours.key"))),
        password: None,
        certificate: Some(named("ours.pem", golden!("certs/ours.pem"))),
        store: Some(store),
        digest,
    };
    let (keys, faults) = load(files, clock::now());
    assert!(faults.iter().all(|fault| fault.is_warning), "{faults:?}");
    keys
}

/// What Celery's library has signed.
fn signed(name: &str) -> String {
    let all: serde_json::Value = serde_json::from_str(golden!("signed.json")).unwrap();
    all[name].as_str().unwrap().into()
}

fn why(keys: &Keys, text: &str) -> String {
    keys.verify(text.as_bytes(), clock::now()).unwrap_err().0
}

#[test]
fn what_celery_signs_is_verified() {
    for digest in ["sha224", "sha256", "sha384"] {
        for who in ["ours", "theirs"] {
            let text = signed(&format!("{who} {digest}"));
            let verified = keys_of(digest, store()).verify(text.as_bytes(), clock::now()).unwrap();
            assert_eq!(verified.content_type, "application/json");
            assert_eq!(verified.body, "[[1, \"\\u00fc\"], {}, {}]".as_bytes());
        }
    }
    let verified = keys_of("sha256", store()).verify(signed("ours yaml").as_bytes(), clock::now());
    assert_eq!(verified.unwrap().content_type, "application/x-yaml");
    let other = keys_of("sha512", store());
    assert!(why(&other, &signed("ours sha256")).contains("the signature is not that of"));
}

#[test]
fn what_is_signed_here_is_verified_here() {
    for digest in ["sha224", "sha256", "sha384", "sha512"] {
        let keys = keys_of(digest, store());
        assert!(keys.can_sign());
        let text = keys.sign(b"[1]").unwrap();
        assert!(looks_signed(&text));
        let verified = keys.verify(&text, clock::now()).unwrap();
        assert_eq!(verified.body, b"[1]");
        assert_ne!(text, keys.sign(b"[1]").unwrap(), "each has a salt of its own");
    }
}

#[test]
fn forged_unknown_and_expired_ones_are_refused() {
    let keys = keys_of("sha256", store());
    let fields = from_base64(&signed("ours sha256")).unwrap();
    let body = fields.iter().rposition(|byte| *byte == 1).unwrap() + 1;
    for at in [fields.len() - 1, body] {
        let mut forged = fields.clone();
        forged[at] ^= 2;
        let why = why(&keys, &to_base64(&forged));
        assert!(
            why.starts_with("auth: the signature is not that of \"NO Bl\u{e5}b\u{e6}r"),
            "{why}"
        );
    }
    // The signature of one under the name of another.
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let parts = text(&fields);
    let signer = parts.split('\0').next().unwrap();
    let other = to_base64("NO Bl\u{e5}b\u{e6}r AS \u{3b8} 7".as_bytes());
    let swapped = parts.replacen(signer, &other, 1);
    assert!(why(&keys, &to_base64(swapped.as_bytes())).contains("not that of \"NO"));
    let alone = keys_of("sha256", store()[..1].to_vec());
    let unknown = why(&alone, &signed("theirs sha256"));
    assert_eq!(
        unknown,
        "auth: the certificate \"NO Bl\u{e5}b\u{e6}r AS \u{3b8} 7\" is not in security_cert_store"
    );
    let with_expired = [store(), vec![named("expired.pem", golden!("expired.pem"))]].concat();
    let expired = why(&keys_of("sha256", with_expired), &signed("expired sha256"));
    assert!(expired.contains("qworker 9\" expired at 20"), "{expired}");
    for text in ["", "%%", "AAAA", "W1tdLCB7fSwge31d"] {
        assert_eq!(why(&keys, text), "auth: the body has no signature", "{text}");
    }
    let none = Keys::default();
    assert!(why(&none, &signed("ours sha256")).contains("security_cert_store"));
    assert!(none.sign(b"").unwrap_err().0.contains("security_key and security_certificate"));
}

#[test]
fn damaged_bytes_are_no_more_than_wrong() {
    let keys = keys_of("sha256", store());
    let fields = from_base64(&signed("ours sha256")).unwrap();
    let mut random = fastrand::Rng::with_seed(5);
    for _ in 0..200 {
        let mut damaged = fields.clone();
        let at = random.usize(..damaged.len());
        damaged[at] = damaged[at].wrapping_add(random.u8(1..));
        damaged.truncate(random.usize(at..=damaged.len()));
        let verified = keys.verify(to_base64(&damaged).as_bytes(), clock::now());
        // The encoding and the content type are not signed; the body is.
        let is_same = |verified: &Verified| verified.body.ends_with(b"{}, {}]");
        assert!(verified.as_ref().map_or(true, is_same), "{verified:?}");
    }
}

#[test]
fn every_form_of_a_key_and_everything_that_is_wrong_with_it() {
    let ours = golden!("certs/ours.pem");
    let faults = |key: &str, password, certificate: &str| -> Vec<String> {
        let files = KeyFiles {
            key: Some(named("K", key)),
            password,
            certificate: Some(named("C", certificate)),
            digest: "sha256",
            ..KeyFiles::default()
        };
        load(files, clock::now()).1.into_iter().map(|fault| fault.message).collect()
    };
    for (key, password) in [
        (golden!("ours.key"), None),
        (golden!("ours-pkcs1.key"), None),
        (golden!("ours-encrypted.key"), Some("s3cret")),
    ] {
        assert_eq!(faults(key, password, ours), [""; 0]);
    }
    for (key, password, certificate, expected) in [
        (golden!("ours-encrypted.key"), None, ours, "K is encrypted; expected"),
        (golden!("ours-encrypted.key"), Some("no"), ours, "K cannot be decrypted"),
        (golden!("ours-old.key"), Some("s3cret"), ours, "K is encrypted in OpenSSL's old form"),
        (golden!("ours.key"), Some("x"), ours, "K is not encrypted"),
        (golden!("theirs.key"), None, ours, "K is not the key of security_certificate"),
        (golden!("curve.key"), None, ours, "K is no RSA private key"),
        ("hello", None, ours, "K is no RSA private key"),
        (golden!("ours.key"), None, golden!("curve.pem"), "C is not of an RSA key"),
        (golden!("ours.key"), None, "hello", "C is no certificate"),
        (golden!("ours.key"), None, &ours[..300], "C is no certificate: it is cut off"),
        (golden!("expired.key"), None, golden!("expired.pem"), "C expired at 20"),
    ] {
        let found = faults(key, password, certificate);
        assert!(found.len() == 1 && found[0].starts_with(expected), "{expected}: {found:?}");
    }
}

#[test]
fn a_store_names_the_files_that_are_wrong() {
    let store = [
        store(),
        vec![
            named("twice.pem", golden!("certs/ours.pem")),
            named("README", "These are certificates."),
            named("expired.pem", golden!("expired.pem")),
        ],
    ];
    let files = KeyFiles { store: Some(store.concat()), digest: "sha256", ..KeyFiles::default() };
    let (_, faults) = load(files, clock::now());
    let found: Vec<(&str, bool)> =
        faults.iter().map(|fault| (&*fault.message, fault.is_warning)).collect();
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found[0].0.starts_with("twice.pem is the second certificate of \"NO") && !found[0].1);
    assert_eq!(found[1], ("README is no certificate: expected PEM", false));
    assert!(found[2].0.starts_with("expired.pem expired at 20") && found[2].1);
}
