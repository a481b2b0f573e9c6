"""Who may write: by --writable, by how the call came, and by the names in its certificate."""

import unittest

from grpc.experimental import session_cache

from certificates import Authority, der, san_of_bytes, tls_channel
from support import Code, DaemonTest, make_store, reader_pb2, writer_pb2, writer_pb2_grpc

DNS, URI = 0x82, 0x86  # subjectAltName's tags
WRITER_NAME = "writer.example"
SPIFFE = "spiffe://example.org/ns/store/sa/writer"
CALLS = {
    "Write": writer_pb2.WriteRequest(key=b"new", payload=b"value"),
    "WriteWithKeyHash": writer_pb2.WriteWithKeyHashRequest(key_hash=1, payload=b"value"),
    "BatchWrite": writer_pb2.BatchWriteRequest(items=[writer_pb2.WriteItem(key=b"new", payload=b"value")]),
    "BatchWriteWithKeyHashes": writer_pb2.BatchWriteWithKeyHashesRequest(
        items=[writer_pb2.HashedWriteItem(key_hash=1, payload=b"value")]),
    "WriteStream": [writer_pb2.WriteStreamRequest(key=b"new", data=b"value")],
    "Rename": writer_pb2.RenameRequest(old_key=b"old", new_key=b"new"),
    "Delete": writer_pb2.DeleteRequest(key=b"old"),
    "BatchDelete": writer_pb2.BatchDeleteRequest(keys=[b"old"]),
    "BatchDeleteKeyHashes": writer_pb2.BatchDeleteKeyHashesRequest(key_hashes=[1]),
    "Compact": writer_pb2.CompactRequest(),
}


class AccessTest(DaemonTest):
    def setUp(self):
        super().setUp()
        self.path = make_store(self.folder / "store.srd", {b"old": b"the old value"})

    def writer(self, channel=None):
        return writer_pb2_grpc.DataStoreWriterServiceStub(channel or self.daemon.channel())

    def read(self, channel, key):
        return self.daemon.reader_stub(channel).Read(reader_pb2.ReadRequest(key=key)).entry.payload

    def assert_writes(self, channel):
        self.assertTrue(self.writer(channel).Write(CALLS["Write"]).HasField("commit"))
        self.assertEqual(self.read(channel, b"new"), b"value")

    def assert_refused(self, channel, *says, reason, code=Code.PERMISSION_DENIED, calls=("Write",)):
        """Each of `calls` is refused, and nothing has changed."""
        before = self.path.read_bytes()
        for name in calls:
            request = iter(CALLS[name]) if isinstance(CALLS[name], list) else CALLS[name]
            with self.subTest(name):
                self.fails(code, lambda: getattr(self.writer(channel), name)(request), *says, reason=reason)
        self.assertEqual(self.path.read_bytes(), before)
        self.assertEqual(self.read(channel, b"old"), b"the old value")


class Plain(AccessTest):
    def start(self, *args):
        self.socket = f"unix:{self.folder}/socket"
        self.daemon = self.serve(self.path, "--listen", "127.0.0.1:0", "--listen", self.socket, *args)
        return [self.daemon.channel(), self.daemon.channel(self.socket)]

    def test_without_writable_nobody_writes(self):
        for channel in self.start():
            self.assert_refused(channel, "--writable", reason="READ_ONLY_SERVER", calls=CALLS)

    def test_with_writable_whoever_connects_does(self):
        for channel in self.start("--writable"):
            self.assert_writes(channel)

    def test_where_writers_are_named_plain_callers_have_no_name(self):
        for channel in self.start("--writable", "--allow-writer", WRITER_NAME):
            self.assert_refused(channel, "plain", "--allow-writer", reason="NOT_ALLOWED", calls=CALLS)

    def test_names_alone_make_no_server_writable(self):
        for channel in self.start("--allow-writer", WRITER_NAME):
            self.assert_refused(channel, "--writable", reason="READ_ONLY_SERVER")


class CertifiedTest(AccessTest):
    """mTLS: a verified certificate for every caller."""

    def setUp(self):
        super().setUp()
        self.authority = Authority(self.folder)

    def start(self, *allowed, writable=True):
        pair = self.authority.issue()
        self.socket = f"unix:{self.folder}/socket"
        names = [word for name in allowed for word in ("--allow-writer", name)]
        self.daemon = self.serve(self.path, "--tls-cert", pair.cert, "--tls-key", pair.key, "--tls-client-ca",
                                 self.authority.pair.cert, "--listen", "127.0.0.1:0", "--listen", self.socket, *names,
                                 *(["--writable"] if writable else []))

    def connect(self, san=None, **options):
        return tls_channel(self.daemon, self.authority, self.authority.issue(san, **options))

    def assert_not_allowed(self, channel, *says, **options):
        self.assert_refused(channel, "none of the certificate's names", "--allow-writer", *says, reason="NOT_ALLOWED",
                            **options)


class Certified(CertifiedTest):
    """What the names of a certificate are worth."""

    def test_a_dns_name_that_is_listed_writes(self):
        self.start(WRITER_NAME)
        self.assert_writes(self.connect(f"DNS:{WRITER_NAME}"))
        self.assert_writes(self.connect(f"DNS:first.example, DNS:{WRITER_NAME}, DNS:last.example"))

    def test_so_does_a_uri(self):
        self.start("other.example", SPIFFE)
        self.assert_writes(self.connect(f"URI:{SPIFFE}"))
        self.assert_writes(self.connect(f"DNS:first.example, URI:urn:x, URI:{SPIFFE}"))

    def test_any_of_the_listed_names_will_do(self):
        self.start("a.example", "b.example", SPIFFE, "cn:c")
        for san in ("DNS:a.example", "DNS:b.example", f"URI:{SPIFFE}"):
            self.assert_writes(self.connect(san))
        self.assert_writes(self.connect(cn="c"))

    def test_any_other_reads_and_is_told_its_names_but_nobody_else_s(self):
        self.start(WRITER_NAME, "cn:someone")
        channel = self.connect(f"DNS:reader.example, URI:{SPIFFE}")
        self.assert_not_allowed(channel, "dns reader.example", f"uri {SPIFFE}", calls=CALLS)
        with self.assertRaises(Exception) as caught:
            self.writer(channel).Delete(CALLS["Delete"])
        self.assertNotIn(WRITER_NAME, caught.exception.details())

    def test_a_refusal_shows_only_whole_names_and_stays_short(self):
        self.start(WRITER_NAME)
        names = [f"DNS:{'x' * 50}{i}.example" for i in range(100)]
        self.assert_not_allowed(self.connect(", ".join(names)), f"dns {names[0][4:]}; use another")

    def test_each_connection_has_its_own_names(self):
        self.start(WRITER_NAME)
        may, may_not = self.connect(f"DNS:{WRITER_NAME}"), self.connect("DNS:reader.example")
        for _ in range(3):
            self.assert_not_allowed(may_not)
            self.assert_writes(may)

    def test_a_resumed_session_has_the_names_it_began_with(self):
        self.start(WRITER_NAME)
        for san, check in ((f"DNS:{WRITER_NAME}", self.assert_writes), ("DNS:reader.example", self.assert_not_allowed)):
            cache = session_cache.ssl_session_cache_lru(4)
            pair = self.authority.issue(san)
            for _ in range(3):
                channel = tls_channel(self.daemon, self.authority, pair, grpc__ssl_session_cache=cache)
                check(channel)
                channel.close()

    def test_without_writable_a_listed_name_is_of_no_use(self):
        self.start(WRITER_NAME, writable=False)
        self.assert_refused(self.connect(f"DNS:{WRITER_NAME}"), "--writable", reason="READ_ONLY_SERVER", calls=CALLS)

    def test_a_unix_socket_beside_it_is_plain_and_writes_nothing(self):
        self.start(WRITER_NAME)
        self.assert_refused(self.daemon.channel(self.socket), "plain", reason="NOT_ALLOWED", calls=CALLS)

    def test_names_are_equal_or_different(self):
        self.start(WRITER_NAME, SPIFFE, "*.wild.example", "10.0.0.1", "me@example.org")
        for san in ("DNS:Writer.example", "DNS:WRITER.EXAMPLE", "DNS:writer.example.", "DNS:a.writer.example",
                    "DNS:riter.example", "DNS:writer.exampl", "DNS:writer.example.evil.example", "DNS:*.example",
                    "DNS:*", "DNS:a.wild.example", f"URI:{SPIFFE}/", f"URI:{SPIFFE[:-1]}", f"URI:{SPIFFE.upper()}",
                    "IP:10.0.0.1", "email:me@example.org", f"DNS:writer.example\\, DNS:{WRITER_NAME}"):
            with self.subTest(san):
                extensions = "" if "\\" not in san else san_of_bytes((DNS, f"x, DNS:{WRITER_NAME}".encode()))
                self.assert_not_allowed(self.connect(None if extensions else san, extensions=extensions))
        self.assert_writes(self.connect("DNS:*.wild.example"))

    def test_a_nul_ends_no_name(self):
        self.start(WRITER_NAME, SPIFFE)
        for tag, name in ((DNS, WRITER_NAME.encode()), (URI, SPIFFE.encode())):
            for trick in (name + b"\0.evil.example", name + b"\0", b"\0" + name):
                with self.subTest(trick):
                    channel = self.connect(extensions=san_of_bytes((tag, trick)))
                    self.assert_not_allowed(channel, trick.replace(b"\0", b"?").decode())

    def test_bytes_that_are_no_text_make_no_answer_unreadable(self):
        self.start(WRITER_NAME)
        self.assert_not_allowed(self.connect(extensions=san_of_bytes((DNS, b"\n\x1b[1m\x7f"))), "dns ??[1m?")


class CommonName(CertifiedTest):
    """cn:NAME is for certificates that have nothing else."""

    def test_it_writes_where_it_is_listed_as_one(self):
        self.start("cn:old writer")
        self.assert_writes(self.connect(cn="old writer"))

    def test_not_where_the_name_is_listed_plainly(self):
        self.start("old writer")
        self.assert_not_allowed(self.connect(cn="old writer"))

    def test_names_are_equal_or_different(self):
        self.start("cn:writer")
        for name in ("Writer", "writer2", "write", "cn:writer", "CN=writer"):
            with self.subTest(name):
                self.assert_not_allowed(self.connect(cn=name), f"cn:{name}")

    def test_beside_an_alternative_name_of_any_kind_it_does_not_count(self):
        self.start("cn:writer")
        other = der(0xA0, bytes.fromhex(der(0x06, bytes.fromhex("2a0304")) + der(0xA0, bytes.fromhex(der(0x0C, b"x")))))
        registered = der(0x88, bytes.fromhex("2a0304"))
        for san in ("DNS:a.example", "URI:urn:a", "email:me@example.org", "IP:10.0.0.1"):
            with self.subTest(san):
                self.assert_not_allowed(self.connect(san, cn="writer"))
        for kind, names in (("otherName", other), ("registeredID", registered), ("none", "")):
            with self.subTest(kind):
                san = "2.5.29.17 = DER:" + der(0x30, bytes.fromhex(names))
                self.assert_not_allowed(self.connect(extensions=san, cn="writer"), "it has none that count")

    def test_nor_does_one_of_several(self):
        self.start("cn:writer")
        for subject in ("writer\n1.CN = other", "other\n1.CN = writer"):
            with self.subTest(subject):
                self.assert_not_allowed(self.connect(cn=subject))

    def test_no_uri_passes_for_it(self):
        self.start("cn:writer")
        self.assert_not_allowed(self.connect("URI:cn:writer"))
        self.assert_not_allowed(self.connect("DNS:writer"))

    def test_who_has_no_name_at_all_writes_nothing(self):
        self.start("cn:writer", WRITER_NAME)
        self.assert_not_allowed(self.connect(cn=None), "it has none that count")


class RefusedAtStart(AccessTest):
    """Combinations that would let in whom nobody named, or nobody at all; nothing is read before they are refused."""

    def assert_wrong(self, *args, says):
        lines = self.refused(self.path, *args, status=64)
        self.assertEqual(len(lines), 1, lines)
        self.assertIn(says, lines[0])

    def test_writable_at_an_address_that_others_reach(self):
        self.assert_wrong("--writable", "--listen", "0.0.0.0:0", says="--tls-cert")
        self.assert_wrong("--writable", "--allow-writer", WRITER_NAME, "--listen", "0.0.0.0:0", says="--tls-cert")

    def test_writable_with_tls_that_names_nobody_or_asks_nobody(self):
        pair = ("--tls-cert", "cert", "--tls-key", "key")
        self.assert_wrong("--writable", *pair, says="--allow-writer")
        self.assert_wrong("--writable", *pair, "--tls-client-ca", "ca", says="--allow-writer")
        self.assert_wrong("--writable", *pair, "--allow-writer", WRITER_NAME, says="--tls-client-ca")

    def test_half_a_pair_and_an_authority_without_tls(self):
        self.assert_wrong("--tls-cert", "cert", says="--tls-key")
        self.assert_wrong("--tls-key", "key", says="--tls-cert")
        self.assert_wrong("--tls-client-ca", "ca", says="--tls-cert")

    def test_a_name_that_is_empty(self):
        for name in ("", "cn:"):
            self.assert_wrong("--allow-writer", name, says="--allow-writer")


if __name__ == "__main__":
    unittest.main()
