"""Certificates of a test's own authority, and the Dask configuration that has them."""

import datetime
import json
import subprocess

import trustme


def days(number):
    return datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=number)


class Authority:
    """An authority; everything it writes lies in `folder`."""

    def __init__(self, folder, name="ca"):
        self.folder, self.authority = folder, trustme.CA()
        folder.mkdir(parents=True, exist_ok=True)
        self.file = folder / f"{name}.pem"
        self.authority.cert_pem.write_to_path(self.file)

    def issue(self, name, expired=False):
        """Files of a certificate and its key."""
        cert = self.authority.issue_cert(
            f"{name}.test",
            common_name=name,
            not_before=days(-20),
            not_after=days(-10 if expired else 10),
        )
        cert_file, key_file = self.folder / f"{name}-cert.pem", self.folder / f"{name}-key.pem"
        cert_file.write_bytes(b"".join(blob.bytes() for blob in cert.cert_chain_pems))
        cert.private_key_pem.write_to_path(key_file)
        return cert_file, key_file


def self_signed(folder, name):
    """Files of a certificate, made by openssl, that is its own authority (without saying so), and of its key: what
    Dask Gateway and `Security.temporary()` give to all of a cluster."""
    folder.mkdir(parents=True, exist_ok=True)
    request = folder / "request.cnf"
    request.write_text(
        "[req]\ndistinguished_name = subject\nprompt = no\nx509_extensions = extensions\n"
        f"[subject]\nCN = dask-internal\n[extensions]\nsubjectAltName = DNS:{name}, DNS:dask-internal\n"
    )
    cert, key = folder / "dask.crt", folder / "dask.pem"
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "365", "-config", request]
    subprocess.run([*words, "-keyout", key, "-out", cert], check=True, capture_output=True, timeout=60)
    return cert, key


def tls_configuration(authority_file, inline=False, **roles):
    """`distributed.comm.tls` with files (or their text) of `role=(certificate, key)`."""

    def value(path):
        return path.read_text() if inline else str(path)

    tls = {"ca-file": value(authority_file)}
    for role, (cert, key) in roles.items():
        tls[role] = {"cert": value(cert), "key": value(key)}
    return {"distributed": {"comm": {"tls": tls}}}


def write_configuration(folder, values):
    """For the processes of a cluster in `folder`; JSON is YAML."""
    config = folder / "dask-config"
    config.mkdir(parents=True, exist_ok=True)
    (config / "transports.yaml").write_text(json.dumps(values))
