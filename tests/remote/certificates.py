"""Certificates that servers of the tests show."""

from __future__ import annotations

import subprocess
from pathlib import Path


def self_signed(folder: Path, name: str) -> Path:
    """A certificate that vouches for itself, and its key, in one PEM file.

    Args:
        name: whom it is for, such as `IP:127.0.0.1` or `DNS:pictures.test`.
    """
    key, cert, both = folder / "key.pem", folder / "cert.pem", folder / "both.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=periscope-test -addext"
    subprocess.run(  # noqa: S603
        [*command.split(), f"subjectAltName={name}", "-keyout", str(key), "-out", str(cert)],
        check=True,
        capture_output=True,
    )
    both.write_bytes(key.read_bytes() + cert.read_bytes())
    return both
