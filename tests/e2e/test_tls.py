"""TLS: what is served over it, who is let in, and certificates that change while the daemon runs."""

import functools
import os
import shutil
import signal
import socket
import ssl
import tempfile
import threading
import time
import unittest
import warnings
from pathlib import Path

import grpc
from grpc.experimental import session_cache

from certificates import Authority, Pair, handshake, install, openssl, serial, tls_channel
from support import KIB, MIB, Code, DaemonTest, make_store, noise, reader_pb2

VALUES = {b"tiny": b"t", b"small": noise("small", 200), b"chunk": noise("chunk", 16 * KIB),
          b"medium": noise("medium", 300 * KIB), b"large": noise("large", 3 * MIB), b"huge": noise("huge", 24 * MIB)}


@functools.cache
def the_store():
    """One for all: they only read it."""
    folder = tempfile.TemporaryDirectory(prefix="rdrive-e2e-")
    unittest.addModuleCleanup(folder.cleanup)
    return make_store(Path(folder.name) / "store.srd", VALUES)


class TlsTest(DaemonTest):
    def setUp(self):
        super().setUp()
        self.authority = Authority(self.folder)
        self.pair = self.authority.issue()

    def start(self, *args, pair=None, store=None, **options):
        pair = pair or self.pair
        self.daemon = self.serve(store or the_store(), "--tls-cert", pair.cert, "--tls-key", pair.key, *args, **options)
        return self.daemon

    def stub(self, **options):
        return self.daemon.reader_stub(tls_channel(self.daemon, options.pop("authority", self.authority), **options))

    def read(self, stub, key=b"small"):
        return stub.Read(reader_pb2.ReadRequest(key=key), timeout=60).entry.payload

    def assert_reads(self, stub):
        self.assertEqual(self.read(stub), VALUES[b"small"])

    def assert_shut_out(self, **options):
        """No connection is made: neither by gRPC nor by anything else that speaks TLS."""
        with self.assertRaises(grpc.RpcError) as caught:
            self.read(self.stub(**options))
        self.assertEqual(caught.exception.code(), Code.UNAVAILABLE)
        with self.assertRaises((ssl.SSLError, ConnectionError)):
            handshake(self.daemon.address(), options.get("authority", self.authority), options.get("pair"))


class Serving(TlsTest):
    def test_every_read_is_byte_exact(self):
        self.start()
        stub = self.stub()
        for key, value in VALUES.items():
            answer = stub.ReadStream(reader_pb2.ReadStreamRequest(key=key))
            self.assertEqual(b"".join(message.fragment.data for message in answer), value)
            if len(value) <= 3 * MIB:
                self.assertEqual(self.read(stub, key), value)
        keys = [key for key, value in VALUES.items() if len(value) <= 300 * KIB]
        items = stub.BatchRead(reader_pb2.BatchReadRequest(keys=keys)).items
        self.assertEqual([item.entry.payload for item in items], [VALUES[key] for key in keys])

    def test_a_client_that_trusts_another_authority_hangs_up(self):
        self.start()
        other = Authority(self.folder, "other")
        self.assert_shut_out(authority=other)
        self.assert_reads(self.stub())

    def test_a_plain_client_gets_nothing(self):
        self.start()
        self.fails(Code.UNAVAILABLE, lambda: self.read(self.daemon.reader_stub()))
        self.assert_reads(self.stub())

    def test_versions_below_1_2_are_refused(self):
        address = self.start().address()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
                with self.assertRaises((ssl.SSLZeroReturnError, ssl.SSLEOFError, ConnectionError)):  # it hangs up
                    handshake(address, self.authority, version=version, security_level=0)
        self.assertEqual(handshake(address, self.authority, version=ssl.TLSVersion.TLSv1_2)[0], "TLSv1.2")
        self.assertEqual(handshake(address, self.authority)[0], "TLSv1.3")

    def test_every_tcp_listener_speaks_it_and_no_unix_socket(self):
        path = self.folder / "socket"
        self.start("--listen", "127.0.0.1:0", "--listen", f"unix:{path}", "--listen", "127.0.0.1:0")
        addresses = [event["address"] for event in self.daemon.events("listening")]
        self.assertEqual(addresses[1], f"unix:{path}")
        for address in (addresses[0], addresses[2]):
            self.assert_reads(self.stub(address=address))
            self.fails(Code.UNAVAILABLE, lambda: self.read(self.daemon.reader_stub(self.daemon.channel(address))))
        self.assert_reads(self.daemon.reader_stub(self.daemon.channel(f"unix:{path}")))

    def test_the_whole_chain_is_shown(self):
        middle = Authority(self.folder, "middle", parent=self.authority)
        leaf = middle.issue()
        whole = Pair(self.folder / "whole.crt", leaf.key)
        whole.cert.write_bytes(leaf.cert.read_bytes() + middle.pem)
        self.start(pair=whole)
        self.assert_reads(self.stub())
        self.assertEqual(self.daemon.event("tls certificate loaded")["certificates"], "2")

    def test_options_may_come_from_the_environment(self):
        self.daemon = self.serve(the_store(),
                                 env={"RDRIVED_TLS_CERT": str(self.pair.cert), "RDRIVED_TLS_KEY": str(self.pair.key)})
        self.assert_reads(self.stub())

    def test_a_stream_under_way_is_finished_before_the_daemon_stops(self):
        self.start()
        answer = self.stub().ReadStream(reader_pb2.ReadStreamRequest(key=b"huge"))
        got = [next(answer).fragment.data]
        self.daemon.send(signal.SIGTERM)
        self.daemon.event("draining")
        got += [message.fragment.data for message in answer]
        self.assertEqual(b"".join(got), VALUES[b"huge"])
        self.assertEqual(self.daemon.wait(), 0)

    def test_calls_that_come_while_it_stops_are_served_or_told_to_go_elsewhere(self):
        self.start()
        ends = []

        def run():
            stub, code = self.stub(), Code.OK
            while code == Code.OK:
                code = self.code_of(lambda: self.assert_reads(stub))
            ends.append(code)

        threads = [threading.Thread(target=run) for _ in range(8)]
        for thread in threads:
            thread.start()
        self.daemon.send(signal.SIGTERM)
        for thread in threads:
            thread.join()
        self.assertEqual(ends, [Code.UNAVAILABLE] * 8)
        self.assertEqual(self.daemon.wait(), 0)

    def say(self, junk):
        """Say it, and wait for the daemon to hang up."""
        host, port = self.daemon.address().rsplit(":", 1)
        with socket.create_connection((host, int(port))) as connection:
            try:
                connection.sendall(junk)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(4096):
                    pass
            except ConnectionError:
                pass

    def test_what_is_no_handshake_costs_only_its_own_connection(self):
        self.start()
        for junk in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" + bytes(200), b"\x00" * 5000):
            self.say(junk)
        self.assert_reads(self.stub())

    def test_failed_handshakes_are_no_errors_and_do_not_fill_the_log(self):
        self.start()
        begun = time.monotonic()
        for _ in range(200):
            self.say(b"GET / HTTP/1.1\r\n\r\n")
        seconds = int(time.monotonic() - begun)
        self.assertIn("http request", self.daemon.event("tls handshake failed")["why"])
        self.assertLessEqual(len(self.daemon.events("tls handshake failed")), seconds + 2)
        self.assertNotIn("level=error", self.daemon.log())


class Cut(TlsTest):
    """What encrypts reads payloads where nothing guards it, so over TLS it gets copies."""

    def setUp(self):
        super().setUp()
        self.path = shutil.copy(the_store(), self.folder / "store.srd")
        self.middle = self.path.read_bytes().index(VALUES[b"huge"]) + 12 * MIB

    def test_a_file_cut_during_a_stream_ends_the_stream_and_nothing_else(self):
        self.start(store=self.path)
        answer = self.stub().ReadStream(reader_pb2.ReadStreamRequest(key=b"huge"))
        got = [next(answer).fragment.data]  # then nobody reads: the rest waits for room
        os.truncate(self.path, self.middle)
        with self.assertRaises(grpc.RpcError) as caught:
            for message in answer:
                got.append(message.fragment.data)
        self.assertEqual(caught.exception.code(), Code.DATA_LOSS)
        got = b"".join(got)
        self.assertLess(len(got), len(VALUES[b"huge"]))
        self.assertEqual(got, VALUES[b"huge"][:len(got)])
        self.assert_reads(self.stub())

    def test_a_cut_under_many_readers_costs_none_of_them_its_connection(self):
        self.start(store=self.path)
        stubs = [self.stub() for _ in range(4)]
        calls = [stub.ReadStream(reader_pb2.ReadStreamRequest(key=b"huge")) for stub in stubs for _ in range(4)]
        for call in calls:
            next(call)
        os.truncate(self.path, self.middle)
        for call in calls:
            with self.assertRaises(grpc.RpcError) as caught:
                for _ in call:
                    pass
            self.assertEqual(caught.exception.code(), Code.DATA_LOSS)
        for stub in stubs:
            self.assert_reads(stub)


class Mutual(TlsTest):
    def setUp(self):
        super().setUp()
        self.clients = Authority(self.folder, "clients")
        self.client = self.clients.issue("DNS:client.example")

    def test_a_certificate_of_the_client_authority_is_let_in(self):
        self.start("--tls-client-ca", self.clients.pair.cert)
        self.assert_reads(self.stub(pair=self.client))
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            handshake(self.daemon.address(), self.authority, self.client, version)

    def test_none_is_shut_out(self):
        self.start("--tls-client-ca", self.clients.pair.cert)
        self.assert_shut_out()
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            with self.assertRaises((ssl.SSLError, ConnectionError)):
                handshake(self.daemon.address(), self.authority, version=version)

    def test_the_environment_alone_requires_one(self):
        self.daemon = self.serve(the_store(), env={"RDRIVED_TLS_CERT": str(self.pair.cert),
                                                   "RDRIVED_TLS_KEY": str(self.pair.key),
                                                   "RDRIVED_TLS_CLIENT_CA": str(self.clients.pair.cert)})
        self.assert_reads(self.stub(pair=self.client))
        self.assert_shut_out()
        self.assert_shut_out(pair=self.authority.issue("DNS:client.example"))

    def test_another_authority_s_is_shut_out_though_it_has_the_name_and_the_server_s_signature(self):
        self.start("--tls-client-ca", self.clients.pair.cert)
        twin = Authority(self.folder, "clients")
        for authority in (twin, self.authority):
            self.assert_shut_out(pair=authority.issue("DNS:client.example"))

    def test_dates_count(self):
        self.start("--tls-client-ca", self.clients.pair.cert)
        self.assert_shut_out(pair=self.clients.issue_for(-3, -1))
        self.assert_shut_out(pair=self.clients.issue_for(1, 3))
        self.assert_reads(self.stub(pair=self.clients.issue_for(-1, 1)))

    def test_a_certificate_for_servers_only_is_shut_out(self):
        self.start("--tls-client-ca", self.clients.pair.cert)
        self.assert_shut_out(pair=self.clients.issue("DNS:a", extensions="extendedKeyUsage = serverAuth"))
        self.assert_reads(self.stub(pair=self.clients.issue("DNS:a", extensions="extendedKeyUsage = clientAuth")))

    def test_any_of_several_authorities_will_do(self):
        second = Authority(self.folder, "second")
        both = self.folder / "both.crt"
        both.write_bytes(self.clients.pem + second.pem)
        self.start("--tls-client-ca", both)
        self.assertEqual(self.daemon.event("tls certificate loaded")["client_cas"], "2")
        for authority in (self.clients, second):
            self.assert_reads(self.stub(pair=authority.issue("DNS:client.example")))


class RefusedAtStart(TlsTest):
    def refusal(self, cert=None, key=None, *args):
        """The one line that a start with these files ends with."""
        lines = self.refused(the_store(), "--tls-cert", cert or self.pair.cert, "--tls-key",
                             key or self.pair.key, *args)
        lines = [line for line in lines if "level=error" in line]
        self.assertEqual(len(lines), 1, lines)
        self.assertIn("cannot use the tls files", lines[0])
        return lines[0]

    def file(self, content, name="file"):
        path = self.folder / name
        path.write_bytes(content)
        return path

    def test_a_file_that_is_missing_or_no_file(self):
        pipe = self.folder / "pipe"
        os.mkfifo(pipe)
        for path, why in ((self.folder / "none", "No such file"), (self.folder, "no regular file"),
                          (pipe, "no regular file")):
            for line in (self.refusal(cert=path), self.refusal(key=path),
                         self.refusal(None, None, "--tls-client-ca", path)):
                self.assertIn(str(path), line)
                self.assertIn(why, line)

    def test_what_is_not_pem(self):
        raw = self.folder / "raw.der"
        openssl("x509", "-in", self.pair.cert, "-outform", "DER", "-out", raw)
        for path, why in ((raw, "not PEM"), (self.file(b"", "empty"), "no certificate"),
                          (self.file(b"hello\n", "text"), "no certificate"), (self.pair.key, "no certificate")):
            for line in (self.refusal(cert=path), self.refusal(None, None, "--tls-client-ca", path)):
                self.assertIn(f"{path}: ", line)
                self.assertIn(why, line)
        self.assertIn("no private key", self.refusal(key=self.pair.cert))

    def test_a_chain_that_breaks_off(self):
        pem = self.pair.cert.read_bytes()
        self.assertIn("can't be read", self.refusal(cert=self.file(pem[:len(pem) // 2])))
        self.assertIn("not all its certificates", self.refusal(cert=self.file(pem + pem[:len(pem) // 2])))
        self.assertIn("not all its certificates",
                      self.refusal(None, None, "--tls-client-ca", self.file(pem + pem[:len(pem) // 2])))

    def test_another_certificate_s_key(self):
        self.assertIn("not the key of", self.refusal(key=self.authority.issue().key))
        self.assertIn("not the key of", self.refusal(key=self.authority.issue(key=("rsa:2048",)).key))

    def test_a_key_with_a_passphrase(self):
        locked = self.folder / "locked.key"
        openssl("pkey", "-in", self.pair.key, "-aes256", "-passout", "pass:secret", "-out", locked)
        self.assertIn("passphrase", self.refusal(key=locked))

    def test_a_key_that_tls_finds_too_weak(self):
        weak = self.authority.issue(key=("rsa:1024",))
        self.assertIn("too small", self.refusal(*weak))


class Reload(TlsTest):
    """The daemon looks at its files; nobody tells it."""

    def setUp(self):
        super().setUp()
        self.live = Pair(self.folder / "live.crt", self.folder / "live.key")
        install(self.pair, self.live)
        self.loads = 1
        self.refusals = 0

    def start(self, *args, **options):
        super().start(*args, pair=self.live, **options)
        self.assert_shown(self.pair)
        return self.daemon

    def assert_shown(self, pair, client=None):
        for event in self.daemon.events("listening"):
            self.assertEqual(handshake(event["address"], self.authority, client)[1], serial(pair))

    def loaded(self, pair):
        """Wait until `pair` is the next to be loaded."""
        self.loads += 1
        self.assertEqual(self.daemon.event("tls certificate loaded", count=self.loads)["serial"], serial(pair))

    def assert_refused(self, why):
        """Wait until files are refused for this reason. A look may catch a file half written, and say so first."""
        self.refusals += 1
        while why not in self.daemon.event("tls files refused", count=self.refusals)["why"]:
            self.refusals += 1

    def test_new_connections_get_the_new_certificate_and_old_ones_go_on(self):
        self.start("--listen", "127.0.0.1:0", "--listen", "127.0.0.1:0")
        old = [self.stub(address=event["address"]) for event in self.daemon.events("listening")]
        for stub in old:
            self.assert_reads(stub)
        answer = old[0].ReadStream(reader_pb2.ReadStreamRequest(key=b"huge"))
        got = [next(answer).fragment.data]
        for _ in range(2):
            new = self.authority.issue()
            install(new, self.live)
            self.loaded(new)
            self.assert_shown(new)
        for stub in (*old, self.stub()):
            self.assert_reads(stub)
        self.assertEqual(b"".join(got + [message.fragment.data for message in answer]), VALUES[b"huge"])

    def test_connections_made_meanwhile_get_one_or_the_other(self):
        address = self.start().address()
        pairs = [self.pair, *(self.authority.issue() for _ in range(3))]
        stop, wrong = threading.Event(), []

        def run():
            known = {serial(pair) for pair in pairs}
            while not stop.is_set():
                try:
                    shown = handshake(address, self.authority)[1]
                    if shown not in known:
                        wrong.append(shown)
                except OSError as error:
                    wrong.append(error)

        threads = [threading.Thread(target=run) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            for pair in pairs[1:]:
                install(pair, self.live)
                self.loaded(pair)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        self.assertEqual(wrong, [])
        self.assert_shown(pairs[-1])

    def test_a_bad_pair_changes_nothing_but_the_log(self):
        self.start()
        self.live.cert.write_text("not a certificate\n")
        self.assert_refused(f"{self.live.cert}: ")
        self.assert_shown(self.pair)
        self.live.cert.unlink()
        self.assert_refused("No such file")
        self.assert_shown(self.pair)
        install(self.authority.issue(), Pair(self.live.cert, self.folder / "elsewhere.key"))
        self.assert_refused("not the key of")
        self.assert_shown(self.pair)
        new = self.authority.issue()
        install(new, self.live)
        self.loaded(new)
        self.assert_shown(new)

    def test_a_missing_file_is_told_of_once(self):
        self.start()
        self.live.key.unlink()
        self.assert_refused("No such file")
        self.live.key.write_bytes(self.pair.key.read_bytes())
        new = self.authority.issue()
        os.utime(self.live.cert)
        install(new, self.live)
        self.loaded(new)
        whys = [event["why"] for event in self.daemon.events("tls files refused")]
        self.assertEqual(len([why for why in whys if "No such file" in why]), 1, whys)

    def test_a_key_that_comes_before_its_certificate_ends_in_the_new_pair(self):
        self.start()
        new = self.authority.issue()
        self.live.key.write_bytes(new.key.read_bytes())
        self.assert_refused("not the key of")
        self.assert_shown(self.pair)
        self.live.cert.write_bytes(new.cert.read_bytes())
        self.loaded(new)
        self.assert_shown(new)

    def test_so_does_a_certificate_that_comes_before_its_key(self):
        self.start()
        new = self.authority.issue()
        self.live.cert.write_bytes(new.cert.read_bytes())
        self.assert_refused("not the key of")
        self.live.key.write_bytes(new.key.read_bytes())
        self.loaded(new)
        self.assert_shown(new)

    def test_files_renamed_into_place_are_seen(self):
        self.start()
        new = self.authority.issue()
        target = Pair(self.folder / "next.crt", self.folder / "next.key")
        install(new, target)
        os.rename(target.key, self.live.key)
        os.rename(target.cert, self.live.cert)
        self.loaded(new)
        self.assert_shown(new)

    def test_the_same_bytes_again_are_no_news(self):
        self.start()
        install(self.pair, self.live)
        new = self.authority.issue()
        install(new, self.live)
        self.loaded(new)  # the second load, not the third

    def test_a_swapped_symlink_is_seen(self):
        """As a secret's volume in Kubernetes: tls.crt -> ..data/tls.crt, ..data -> a folder; the last is renamed over."""
        volume = self.folder / "volume"

        def publish(version, pair):
            (volume / version).mkdir(parents=True)
            install(pair, Pair(volume / version / "tls.crt", volume / version / "tls.key"))
            (volume / "..new").symlink_to(version)
            os.rename(volume / "..new", volume / "..data")

        publish("..1", self.pair)
        self.live = Pair(volume / "tls.crt", volume / "tls.key")
        for path in self.live:
            path.symlink_to(Path("..data") / path.name)
        self.start()
        new = self.authority.issue()
        publish("..2", new)
        shutil.rmtree(volume / "..1")
        self.loaded(new)
        self.assert_shown(new)
        self.assertEqual(self.daemon.events("tls files refused"), [])

    def test_a_new_client_authority_is_asked_from_then_on(self):
        first, second = Authority(self.folder, "first"), Authority(self.folder, "second")
        one, two = first.issue("DNS:one"), second.issue("DNS:two")
        trusted = self.folder / "trusted.crt"
        trusted.write_bytes(first.pem)
        TlsTest.start(self, "--tls-client-ca", trusted, pair=self.live)
        cache = session_cache.ssl_session_cache_lru(4)
        old = self.stub(pair=one, grpc__ssl_session_cache=cache)
        self.assert_reads(old)
        self.assert_shut_out(pair=two)
        trusted.write_bytes(second.pem)
        self.daemon.event("tls certificate loaded", count=2)
        self.assert_reads(self.stub(pair=two))
        self.assert_shut_out(pair=one)
        self.fails(Code.UNAVAILABLE, lambda: self.read(self.stub(pair=one, grpc__ssl_session_cache=cache)))
        self.assert_reads(old)
        trusted.write_bytes(b"")
        self.assert_refused(str(trusted))
        self.assert_reads(self.stub(pair=two))
        self.assert_shut_out()


class Dates(TlsTest):
    def test_an_expired_certificate_is_served_with_a_warning(self):
        pair = self.authority.issue_for(-3, -1)
        self.start(pair=pair)
        self.assertEqual(self.daemon.event("tls certificate expired")["serial"], serial(pair))
        self.assert_shut_out()  # the clients see to that

    def test_so_is_one_that_is_not_valid_yet(self):
        self.start(pair=self.authority.issue_for(1, 3))
        self.daemon.event("tls certificate not valid yet")

    def test_one_that_expires_while_it_is_served_is_told_of(self):
        pair = self.authority.issue_for(-1, 4 / 86400)
        self.start(pair=pair)
        self.daemon.event("tls certificate expired")
        self.assertEqual(len(self.daemon.events("tls certificate expired")), 1)

    def test_a_valid_one_is_not(self):
        self.start()
        loaded = self.daemon.event("tls certificate loaded")
        self.assertRegex(loaded["not_after"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")
        self.assertEqual(self.daemon.events("tls certificate expired"), [])
        self.assertEqual(self.daemon.events("tls certificate not valid yet"), [])


if __name__ == "__main__":
    unittest.main()
