"""The alliance's own small certificate authority, and the certificates with which hub and members meet (X.509, P-256).

A certificate proves who opened a connection. What is said over it is signed with the member's own key (`guard.keys`).
"""

from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from dure.errors import FileMissing, KeyExposed
from dure.guard.durable import write_whole

YEARS = 20
SKEW = timedelta(minutes=10)
"""A certificate holds from a little before it was made: hospitals' clocks differ."""


def create_key() -> bytes:
    """A new private key (P-256, PEM)."""
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def create_authority(alliance: str, key: bytes) -> bytes:
    """The alliance's root certificate (PEM); it signs members, never other authorities."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{alliance} authority"[:64])])
    private = _private(key)
    builder = _builder(name, name, private.public_key(), timedelta(days=365 * YEARS))
    usage = _usage(signs_certificates=True)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(usage, critical=True)
    return builder.sign(private, hashes.SHA256()).public_bytes(Encoding.PEM)


def request(key: bytes, name: str) -> bytes:
    """A signing request (PEM): it carries the public key only, and proves that its sender has the private one."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(subject)
        .sign(_private(key), hashes.SHA256())
        .public_bytes(Encoding.PEM)
    )


def issue(
    authority: bytes,
    authority_key: bytes,
    signing_request: bytes,
    name: str,
    valid: timedelta,
    hosts: tuple[str, ...] = (),
) -> bytes:
    """A certificate (PEM) for `name`, whatever the request calls itself; with `hosts` it is the hub's.

    Raises ValueError where the request is broken or not signed with its own key.
    """
    asked = x509.load_pem_x509_csr(signing_request)
    public = asked.public_key()
    if not asked.is_signature_valid or not isinstance(public, ec.EllipticCurvePublicKey):
        raise ValueError("the signing request is not sound")
    issuer = x509.load_pem_x509_certificate(authority)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    purpose = ExtendedKeyUsageOID.SERVER_AUTH if hosts else ExtendedKeyUsageOID.CLIENT_AUTH
    builder = _builder(subject, issuer.subject, public, valid)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    if hosts:
        names = [_host(host) for host in dict.fromkeys((*hosts, "localhost", "127.0.0.1"))]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(_private(authority_key), hashes.SHA256()).public_bytes(Encoding.PEM)


def same_key(certificate: bytes, signing_request: bytes) -> bool:
    """Whether a certificate was issued for the key of this request."""
    issued, asked = x509.load_pem_x509_certificate(certificate), x509.load_pem_x509_csr(signing_request)
    return issued.public_key() == asked.public_key()


def serial(certificate: bytes) -> str:
    """The serial number in upper-case hexadecimal digits, as TLS libraries print it."""
    digits = f"{x509.load_pem_x509_certificate(certificate).serial_number:X}"
    return digits if len(digits) % 2 == 0 else "0" + digits


def expires(certificate: bytes) -> datetime:
    return x509.load_pem_x509_certificate(certificate).not_valid_after_utc


def begins(certificate: bytes) -> datetime:
    return x509.load_pem_x509_certificate(certificate).not_valid_before_utc


def fingerprint(certificate: bytes) -> str:
    """SHA-256 of the certificate in groups of four, to be read aloud on the telephone."""
    return grouped(x509.load_pem_x509_certificate(certificate).fingerprint(hashes.SHA256()))


def grouped(digest: bytes) -> str:
    """A digest as people compare it: its first 16 bytes in groups of four digits."""
    digits = digest[:16].hex().upper()
    return " ".join(digits[place : place + 4] for place in range(0, 32, 4))


def signed_by(certificate: bytes, authority: bytes) -> bool:
    """Whether the authority issued the certificate."""
    try:
        x509.load_pem_x509_certificate(certificate).verify_directly_issued_by(x509.load_pem_x509_certificate(authority))
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner may read (`dure.guard.durable.write_whole`)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_name(path.name + ".new").unlink(missing_ok=True)  # what a crash left may be readable by others
    write_whole(path, data, stat.S_IRUSR | stat.S_IWUSR)


def read_private(path: Path) -> bytes:
    """The file's bytes; raises FileMissing, or KeyExposed where other users may read it."""
    if not path.is_file():
        raise FileMissing(path=path)
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise KeyExposed(path=path, mode=f"{mode:04o}")
    return path.read_bytes()


def _private(key: bytes) -> ec.EllipticCurvePrivateKey:
    private = load_pem_private_key(key, password=None)
    if not isinstance(private, ec.EllipticCurvePrivateKey):
        raise ValueError("not a P-256 key")
    return private


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, valid: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + valid)
    )


def _usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)
