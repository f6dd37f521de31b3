"""Certificates for tests, made by another implementation (`cryptography`)."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CLIENT, SERVER = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH
DAY = datetime.timedelta(days=1)


@dataclass
class Shown:
    """A certificate with its key, in files."""

    certificate: x509.Certificate
    pem: Path
    key: Path

    @property
    def fingerprint(self) -> bytes:
        """As the head-end knows it."""
        return sha256(self.certificate.public_bytes(serialization.Encoding.DER)).digest()


class Authority:
    """A certificate authority."""

    def __init__(self, directory: Path, name: str = "authority") -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        moment = datetime.datetime.now(datetime.UTC)
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(self._name)
            .issuer_name(self._name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(moment - DAY)
            .not_valid_after(moment + DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.pem = directory / f"{name}.pem"
        self.pem.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def issue(
        self,
        name: str,
        *,
        purpose: x509.ObjectIdentifier = CLIENT,
        ends: datetime.timedelta = DAY,
        begins: datetime.timedelta = -2 * DAY,
    ) -> Shown:
        """A certificate for a host or a client."""
        key = ec.generate_private_key(ec.SECP256R1())
        moment = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(moment + begins)
            .not_valid_after(moment + ends)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        shown = Shown(certificate, self._directory / f"{name}.pem", self._directory / f"{name}.key")
        shown.pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        shown.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return shown

    def revoke(self, *revoked: Shown, ends: datetime.timedelta = DAY) -> Path:
        """A revocation list with these in it."""
        moment = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._name)
            .last_update(moment - 2 * DAY)
            .next_update(moment + ends)
        )
        for one in revoked:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder()
                .serial_number(one.certificate.serial_number)
                .revocation_date(moment - DAY)
                .build()
            )
        path = self._directory / "revoked.pem"
        path.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        return path
