"""Certificates made here: a CA, and what it has signed."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

__all__ = ["Authority"]


class Authority:
    """A CA, and what it has signed."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.cert = self._signed(name, self.key.public_key(), None)
        self.path = folder / f"{name}.pem"
        self.path.write_bytes(self.cert.public_bytes(serialization.Encoding.PEM))

    def _signed(self, name: str, public: Any, alt: str | None) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        subject = x509.Name(
            [x509.NameAttribute(NameOID.COMMON_NAME, name), x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Own, Ltd")]
        )
        issuer_name = subject if alt is None else self.cert.subject
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer_name).public_key(public)
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(1))
        builder = builder.not_valid_after(now + datetime.timedelta(1))
        builder = builder.add_extension(x509.BasicConstraints(ca=alt is None, path_length=None), critical=True)
        if alt:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(alt)]), critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def sign(self, name: str, file: str = "") -> tuple[str, str]:
        key = ec.generate_private_key(ec.SECP256R1())
        cert = self._signed(name, key.public_key(), "localhost")
        paths = self.folder / f"{file or name}.crt", self.folder / f"{file or name}.key"
        paths[0].write_bytes(cert.public_bytes(serialization.Encoding.PEM))
        paths[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return str(paths[0]), str(paths[1])
