"""Makes keys and certificates of signed messages, and messages that Celery signs with them.

Run by hand, with a Python that has Celery and cryptography; the tests read what it writes here.
"""

import datetime
import json
import pathlib

from celery.security.certificate import Certificate
from celery.security.key import PrivateKey
from celery.security.serialization import SecureSerializer
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

HERE = pathlib.Path(__file__).parent
PKCS1 = serialization.PrivateFormat.TraditionalOpenSSL
PKCS8 = serialization.PrivateFormat.PKCS8
PLAIN = serialization.NoEncryption()


def write(name, data):
    (HERE / name).write_bytes(data)


def key_of(bits):
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def private(name, key, form=PKCS8, password=None):
    secret = serialization.BestAvailableEncryption(password) if password else PLAIN
    write(name, key.private_bytes(serialization.Encoding.PEM, form, secret))


def certificate(name, key, serial, days=36500, issuer="qworker"):
    fields = [
        x509.NameAttribute(x509.NameOID.COUNTRY_NAME, "NO"),
        x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "Blåbær AS"),
        x509.NameAttribute(x509.NameOID.COMMON_NAME, issuer),
    ]
    now = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(fields[:2]))
        .issuer_name(x509.Name(fields))
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(now - datetime.timedelta(days=400))
        .not_valid_after(now + datetime.timedelta(days=days))
        .sign(key, hashes.SHA256())
    )
    text = made.public_bytes(serialization.Encoding.PEM)
    write(name, text)
    return text.decode()


def main():
    ours, theirs, old = key_of(2048), key_of(1025), key_of(2048)
    private("ours.key", ours)
    private("ours-pkcs1.key", ours, PKCS1)
    private("ours-encrypted.key", ours, PKCS8, b"s3cret")
    private("ours-old.key", ours, PKCS1, b"s3cret")
    private("theirs.key", theirs)
    private("expired.key", old)
    private("curve.key", ec.generate_private_key(ec.SECP256R1()))
    (HERE / "certs").mkdir(exist_ok=True)
    certificates = {
        "ours": certificate("certs/ours.pem", ours, 2**158 + 5),
        "theirs": certificate("certs/theirs.pem", theirs, 7, issuer="θ"),
    }
    expired = certificate("expired.pem", old, 9, days=-1)
    certificate("stranger.pem", old, 10)
    certificate("curve.pem", ec.generate_private_key(ec.SECP256R1()), 11)
    signed = {}
    for name, key in ("ours", ours), ("theirs", theirs):
        pem = key.private_bytes(serialization.Encoding.PEM, PKCS8, PLAIN)
        for digest in "sha224", "sha256", "sha384":
            signer = SecureSerializer(
                PrivateKey(pem), Certificate(certificates[name]), None, digest=digest
            )
            signed[f"{name} {digest}"] = signer.serialize([[1, "ü"], {}, {}])
    pem = old.private_bytes(serialization.Encoding.PEM, PKCS8, PLAIN)
    signer = SecureSerializer(PrivateKey(pem), Certificate(expired), None)
    signed["expired sha256"] = signer.serialize([[], {}, {}])
    for serializer in "yaml", "pickle", "msgpack":
        pem = ours.private_bytes(serialization.Encoding.PEM, PKCS8, PLAIN)
        signer = SecureSerializer(
            PrivateKey(pem), Certificate(certificates["ours"]), None, serializer=serializer
        )
        signed[f"ours {serializer}"] = signer.serialize([[1, "ü"], {}, {}])
    write("signed.json", (json.dumps(signed, indent=1) + "\n").encode())


main()
