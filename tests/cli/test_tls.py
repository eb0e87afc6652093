"""TLS as an operator switches it on: certificate and key from files, clients that trust one authority."""

import http.client
import signal
import ssl
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
import trustme

from querator.client import Disconnected, connect
from querator.env.real import client_tls
from tests.cli.conftest import PATIENCE, Run, Served, start, stop, wait_until


@attrs.frozen
class Secured:
    """A server with a certificate of ``authority``, in files that a test may replace."""

    served: Served
    directory: Path
    authority: trustme.CA
    ca: Path

    @property
    def address(self) -> str:
        return self.served.address.replace("127.0.0.1", "localhost")

    def certify(self, authority: trustme.CA) -> None:
        """A new certificate of that authority in the server's files."""
        write_certificate(self.directory, authority)


def write_certificate(directory: Path, authority: trustme.CA) -> None:
    certificate = authority.issue_cert("localhost")
    certificate.private_key_pem.write_to_path(directory / "key.pem")
    (directory / "cert.pem").write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[Secured]:
    authority = trustme.CA()
    ca = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(ca)
    write_certificate(tmp_path, authority)
    files = ("--tls-certificate", str(tmp_path / "cert.pem"), "--tls-key", str(tmp_path / "key.pem"))
    served = start("--log", "memory", *files)
    yield Secured(served, tmp_path, authority, ca)
    stop(served)


def health(secured: Secured, context: ssl.SSLContext) -> int:
    """The status of the health document, over HTTP."""
    connection = http.client.HTTPSConnection(secured.address, context=context, timeout=PATIENCE)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status
    finally:
        connection.close()


def test_both_doors_are_encrypted_and_clients_trust_whom_they_are_told_to(
    secured: Secured, cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert health(secured, client_tls(secured.ca)) == 200
    with pytest.raises(ssl.SSLCertVerificationError):
        health(secured, client_tls())
    ca = ("--ca", str(secured.ca))
    done = cli("queues", "create", "mail", "--address", secured.address, *ca)
    assert done.code == 0, done.err
    assert cli("produce", "mail", "--address", f"wss://{secured.address}", *ca, stdin=b"one\n").code == 0
    monkeypatch.setenv("QUERATOR_CA", str(secured.ca))
    assert cli("consume", "mail", "--max", "1", "--address", f"https://{secured.address}").out == "one\n"
    monkeypatch.delenv("QUERATOR_CA")
    refused = cli("queues", "list", "--address", f"wss://{secured.address}")
    assert refused.code != 0
    assert refused.err.count("not trusted") == 1


def test_an_old_version_of_tls_is_not_spoken(secured: Secured) -> None:
    old = client_tls(secured.ca)
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        health(secured, old)


async def test_the_client_trusts_an_authority(secured: Secured) -> None:
    async with connect(secured.address, ca=secured.ca) as client:
        await client.call("queues.create", {"name": "mail"})
        await client.produce("mail", b"a")
    with pytest.raises(Disconnected, match="certificate is not trusted"):
        async with connect(f"wss://{secured.address}", connect_timeout=1):
            pass
    with pytest.raises(ValueError, match="not encrypted"):
        async with connect(f"ws://{secured.address}", ca=secured.ca):
            pass


async def test_a_new_certificate_is_taken_without_a_restart(secured: Secured) -> None:
    """Sessions go on; what cannot be used is not taken."""
    other = trustme.CA()
    trusts_other = ssl.create_default_context()
    other.configure_trust(trusts_other)
    async with connect(secured.address, ca=secured.ca) as client:
        await client.call("queues.create", {"name": "mail"})
        (secured.directory / "key.pem").write_text("nonsense")
        secured.served.process.send_signal(signal.SIGHUP)
        await client.produce("mail", b"a")
        assert health(secured, client_tls(secured.ca)) == 200
        secured.certify(other)
        secured.served.process.send_signal(signal.SIGHUP)
        wait_until(lambda: trusted(secured, trusts_other), "the certificate was read again")
        assert not trusted(secured, client_tls(secured.ca))
        await client.produce("mail", b"b")


def trusted(secured: Secured, context: ssl.SSLContext) -> bool:
    try:
        return health(secured, context) == 200
    except ssl.SSLCertVerificationError:
        return False


@pytest.mark.parametrize("file", ["cert.pem", "key.pem"])
def test_files_that_are_none_are_refused_at_the_start(file: str, cli: Run, tmp_path: Path) -> None:
    write_certificate(tmp_path, trustme.CA())
    (tmp_path / file).write_text("nonsense")
    options = ("--tls-certificate", str(tmp_path / "cert.pem"), "--tls-key", str(tmp_path / "key.pem"))
    done = cli("serve", "--log", "memory", "--address", "localhost:0", *options)
    assert done.code == 78
    assert done.err.startswith("error: tls_certificate: ")


def test_an_authority_that_is_none_is_refused(cli: Run, tmp_path: Path) -> None:
    done = cli("queues", "list", "--ca", str(tmp_path / "missing.pem"))
    assert done.code == 78
    assert "error: ca: " in done.err
