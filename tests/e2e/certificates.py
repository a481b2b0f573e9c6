"""Certificates made for a test by the openssl command: authorities, what they sign, and channels that use them."""

import socket
import ssl
import subprocess
from collections import namedtuple
from datetime import datetime, timedelta, timezone
from pathlib import Path

import grpc

Pair = namedtuple("Pair", "cert key")  # paths

CONFIG = """
[req]
distinguished_name = dn
prompt = no
string_mask = utf8only
[dn]
{subject}
[ca]
basicConstraints = critical, CA:true
keyUsage = critical, keyCertSign, cRLSign
[leaf]
basicConstraints = CA:false
{extensions}
"""
SERVER_SAN = "DNS:localhost, IP:127.0.0.1"


def openssl(*args):
    done = subprocess.run(["openssl", *map(str, args)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, errors="replace")
    if done.returncode != 0:
        raise AssertionError(f"openssl {args[0]}: {done.stdout}")


def der(tag, content):
    """An element of less than 128 bytes, in hexadecimal."""
    assert len(content) < 128
    return f"{tag:02x}{len(content):02x}{content.hex()}"


def san_of_bytes(*names):
    """A subjectAltName of what the openssl command can't write: (tag, bytes), 0x82 for DNS, 0x86 for URI."""
    content = bytes.fromhex("".join(der(tag, name) for tag, name in names))
    return "2.5.29.17 = DER:" + der(0x30, content)


class Authority:
    """A certificate authority in `folder`; with `parent`, an intermediate one."""

    made = 0

    def __init__(self, folder, name="authority", parent=None):
        self.folder = Path(folder)
        self.name = name
        self.pair = self._make(name, f"CN = {name}", "", "ca", parent)
        self.pem = self.pair.cert.read_bytes()

    def _make(self, name, subject, extensions, section, signer, key=("ec", "-pkeyopt", "ec_paramgen_curve:P-256")):
        Authority.made += 1
        stem = self.folder / f"{name}-{Authority.made}"
        config, pair = Path(f"{stem}.cnf"), Pair(Path(f"{stem}.crt"), Path(f"{stem}.key"))
        config.write_text(CONFIG.format(subject=subject, extensions=extensions))
        signed = ["-CA", signer.pair.cert, "-CAkey", signer.pair.key] if signer else []
        openssl("req", "-x509", "-newkey", *key, "-noenc", "-days", 30, "-config", config, "-extensions", section,
                "-keyout", pair.key, "-out", pair.cert, *signed)
        return pair

    def issue(self, san=SERVER_SAN, cn="someone", name="leaf", extensions="", **options):
        """A certificate of this authority; `san` and `cn` may be None."""
        if san:
            extensions += f"\nsubjectAltName = {san}"
        return self._make(name, f"CN = {cn}" if cn else "O = nobody", extensions, "leaf", self, **options)

    def issue_for(self, begin, end, san=SERVER_SAN):
        """A certificate that is valid from `begin` to `end`, in days from now."""
        pair = self.issue(san)
        request, database = pair.cert.with_suffix(".csr"), pair.cert.with_suffix(".db")
        config = pair.cert.with_suffix(".ca.cnf")
        database.touch()
        config.write_text(f"[ca]\ndefault_ca = this\n[this]\ndatabase = {database}\nnew_certs_dir = {self.folder}\n"
                          f"rand_serial = yes\ndefault_md = sha256\npolicy = any\n[any]\n[leaf]\nsubjectAltName = {san}\n")
        openssl("req", "-new", "-key", pair.key, "-out", request, "-subj", "/CN=dated")
        days = ((datetime.now(timezone.utc) + timedelta(each)).strftime("%Y%m%d%H%M%SZ") for each in (begin, end))
        openssl("ca", "-batch", "-notext", "-config", config, "-extensions", "leaf", "-in", request, "-out", pair.cert,
                "-cert", self.pair.cert, "-keyfile", self.pair.key, "-startdate", next(days), "-enddate", next(days))
        return pair


def install(pair, target):
    """Put a pair's bytes where a server looks for them: the key first."""
    target.key.write_bytes(pair.key.read_bytes())
    target.cert.write_bytes(pair.cert.read_bytes())


def serial(pair):
    """A certificate's serial number in hexadecimal, as the daemon's log and Python have it."""
    done = subprocess.run(["openssl", "x509", "-noout", "-serial", "-in", pair.cert], stdout=subprocess.PIPE, text=True,
                          check=True)
    return done.stdout.strip().split("=")[1]


def tls_channel(daemon, authority, pair=None, address=None, **options):
    """A connection of its own to `daemon`, which must show a certificate of `authority`."""
    credentials = grpc.ssl_channel_credentials(authority.pem, pair and pair.key.read_bytes(),
                                               pair and pair.cert.read_bytes())
    options = {"grpc.use_local_subchannel_pool": 1, "grpc.max_receive_message_length": -1, "grpc.enable_retries": 0,
               **{name.replace("__", "."): value for name, value in options.items()}}
    channel = grpc.secure_channel(address or daemon.address(), credentials, list(options.items()))
    daemon.channels.append(channel)
    return channel


def handshake(address, authority, pair=None, version=None, security_level=None):
    """Shake hands and hear the server's first frame. Returns: (version spoken, serial number of its certificate)."""
    context = ssl.create_default_context(cadata=authority.pem.decode())
    context.set_alpn_protocols(["h2"])
    if pair:
        context.load_cert_chain(pair.cert, pair.key)
    if security_level is not None:
        context.set_ciphers(f"ALL:@SECLEVEL={security_level}")
    if version:
        context.minimum_version = context.maximum_version = version
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=60) as plain:
        with context.wrap_socket(plain, server_hostname=host) as connection:
            if not connection.recv(9):  # with TLS 1.3 a client is refused after its own handshake is done
                raise ssl.SSLEOFError("closed")
            return connection.version(), connection.getpeercert()["serialNumber"]
