"""`rdrive` on a store that is served: each verb says and does what it says and does on a path."""

import json
import os
import re
import shutil
import subprocess
import unittest
from pathlib import Path

from certificates import Authority
from support import BIN, DEADLINE_S, FIXTURES, KIB, MIB, SANITIZE, SLOWDOWN, DaemonTest, daemon_environment, noise, tell

RDRIVE = str(BIN / "rdrive")
VALID = FIXTURES / "valid"


def run(*args, stdin=b"", **options):
    """Run the tool; stdout and stderr come back as bytes."""
    options.setdefault("stdout", subprocess.PIPE)
    options.setdefault("stderr", subprocess.PIPE)
    return subprocess.run([RDRIVE, *map(os.fspath, args)], input=stdin, timeout=DEADLINE_S, env=daemon_environment(),
                          **options)


class RemoteTest(DaemonTest):
    def setUp(self):
        super().setUp()
        self.path = self.folder / "path.srd"      # a store that the tool opens itself
        self.served = self.folder / "served.srd"  # the same, behind a daemon

    def start(self, *args, store=None):
        """Serve a store; its URL."""
        self.daemon = self.serve(store or self.served, *args)
        return "grpc://" + self.daemon.address()

    def start_writable(self, *args):
        """Serve a new store for writing, and make another at `path`, as empty."""
        run("import", self.path)
        return self.start("--writable", "--create", *args)

    def done(self, *args, status=0, **options):
        """What the tool prints; it ends with `status`, and says nothing on stderr where that is 0."""
        done = run(*args, **options)
        self.assertEqual(done.returncode, status, (args, done.stderr))
        if status == 0:
            self.assertEqual(done.stderr, b"", args)
        return done.stdout

    def refuses(self, status, *args, says=(), **options):
        """The tool ends with `status` and one line on stderr that holds each of `says`; returns that line."""
        done = run(*args, **options)
        line = done.stderr.decode()
        self.assertEqual(done.returncode, status, (args, line))
        self.assertRegex(line, r"\Ardrive: [^\n]+\n\Z", args)
        for part in [says] if isinstance(says, str) else says:
            self.assertIn(part, line, args)
        self.assertFalse(done.stdout, args)
        return line

    def same(self, verb, *args, url, path=None, **options):
        """The verb does the same on the URL as on the path; returns what it printed."""
        here, there = (run(verb, store, *args, **options) for store in (path or self.path, url))
        self.assertEqual((there.returncode, there.stdout), (here.returncode, here.stdout), (verb, args, there.stderr))
        self.assertEqual(there.stderr.decode().replace(url, str(path or self.path)), here.stderr.decode(), (verb, args))
        return here.stdout


class Reading(RemoteTest):
    def test_each_reading_verb_answers_as_on_the_path(self):
        for name in ["01_empty", "05_deletes", "07_all_deleted", "08_binary_keys", "10_payload_sizes", "12_stream"]:
            store = VALID / f"{name}.srd"
            url = self.start(store=store)
            keys = json.loads(Path(f"{store}.json").read_text())["keys"]
            with self.subTest(store=name):
                self.same("last", url=url, path=store)
                self.same("last", "--json", url=url, path=store)
                for number, key in enumerate(keys[:2] + keys[-1:]):
                    by_hash = number % 2 == 0 or key["key_hex"] is None
                    option, word = ("--hash", key["key_hash"]) if by_hash else ("--hex-key", key["key_hex"])
                    for verb in ["get", "exists", "metadata"]:
                        self.same(verb, option, word, url=url, path=store)
                for verb in ["get", "exists", "metadata"]:
                    self.same(verb, "no such key", url=url, path=store)

    def test_a_namespace_is_the_same_key_on_both_sides(self):
        store = VALID / "14_namespaced.srd"
        url = self.start(store=store)
        self.assertEqual(self.same("get", "--namespace", "users", "1", url=url, path=store), b"users/1")

    def test_info_says_of_the_store_what_it_says_on_the_path_and_the_limits(self):
        for store in [VALID / "05_deletes.srd", FIXTURES / "damaged" / "a_flip_crc_middle.bin"]:
            url = self.start("--max-batch-keys", "77", "--max-request-bytes", "100000", store=store)
            here, there = (json.loads(self.done("info", "--json", each)) for each in (store, url))
            for name in ["live_keys", "entries", "tail_offset", "file_size", "generation", "damaged_entries"]:
                self.assertEqual(there[name], here[name], name)
            places = [[(each["offset"], each["size"], each["what"]) for each in info["damaged"]]
                      for info in (here, there)]
            self.assertEqual(places[0], places[1])
            self.assertEqual({each["key_hash"] for each in there["damaged"]} - {None}, set())  # which do not travel
            self.assertEqual((there["address"], there["max_batch_keys"], there["max_request_bytes"]),
                             (url, 77, 100_000))
            self.assertEqual(there["writable"], "no")
            lines = self.done("info", url).decode().splitlines()
            for name, value in there.items():
                if name != "damaged":
                    self.assertIn([name, str(value)], [line.split(None, 1) for line in lines])

    def test_a_damaged_value_is_never_written_out(self):
        for key, value in [("old", b"fine"), ("big", b"x" * 100_000), ("new", b"also fine")]:
            run("put", "--create", self.path, key, stdin=value)
        data = bytearray(self.path.read_bytes())
        data[50_000] ^= 1
        self.path.write_bytes(data)
        url = self.start(store=self.path)
        self.assertEqual(self.same("get", "big", url=url), b"")
        self.refuses(2, "get", url, "big", says=('key "big"', "damaged: the stored bytes do not match"))
        self.assertEqual(self.same("get", "new", url=url), b"also fine")

    def test_a_unix_socket_is_a_store_too(self):
        address = f"unix:{self.folder}/socket"
        self.start("--listen", address, store=VALID / "05_deletes.srd")
        self.same("last", url=address, path=VALID / "05_deletes.srd")

    def test_a_full_device_is_an_error(self):
        url = self.start(store=VALID / "10_payload_sizes.srd")
        with open("/dev/full", "wb") as full:
            self.refuses(2, "info", url, stdout=full, says="No space left on device")

    def test_a_reader_that_leaves_ends_the_tool_quietly(self):
        run("put", "--create", self.path, "big", stdin=noise("big", 30 * MIB))
        url = self.start(store=self.path)
        with subprocess.Popen([RDRIVE, "get", url, "big"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              env=daemon_environment()) as tool:
            tool.stdout.read(1)
            tool.stdout.close()
            self.assertEqual(tool.stderr.read(), b"")
            self.assertEqual(tool.wait(timeout=DEADLINE_S), -13)


class CommandLine(RemoteTest):
    def test_options_of_the_other_kind_of_store_are_refused(self):
        for args in [["get", "grpc://h:1", "k", "--index", "off"], ["put", "unix:/x", "k", "v", "--sync", "none"],
                     ["put", "grpcs://h:1", "k", "v", "--create"], ["info", self.path, "--ca", "f"],
                     ["info", self.path, "--timeout", "1"], ["info", "grpc://h:1", "--ca", "f"],
                     ["info", "unix:/x", "--cert", "f", "--key", "f"], ["bench", self.path, "--inflight", "2"],
                     ["bench", "grpc://h:1", "--key-list", "/dev/null", "--verify", "off"]]:
            self.refuses(64, *args, says=(args[0], next(arg for arg in map(str, args) if arg.startswith("--"))
                                          if args[0] != "bench" else "option --"))

    def test_a_certificate_needs_its_key(self):
        for option in ["--cert", "--key"]:
            self.refuses(64, "info", "grpcs://h:1", option, "f", says=(f"{option} came alone", "--cert and --key"))

    def test_what_is_no_address_is_refused_and_the_allowed_are_named(self):
        for store in ["grpc://", "grpc://host", "grpc://host:", "grpc://:1", "grpc://h:0", "grpc://h:65536",
                      "grpc://h:1/", "grpc://u@h:1", "grpc://::1:1", "grpc://h:1x", "grpcs://h", "unix:x", "unix:",
                      "unix:/"]:
            self.refuses(64, "info", store, says=(store, "no address", "grpc://host:port"))

    def test_a_rename_by_hash_is_refused_since_servers_rename_keys(self):
        self.refuses(64, "rename", "--hash", "grpc://h:1", "0" * 16, "1" * 16, says=("--hash", "keys, not hashes"))


class Large(RemoteTest):
    SIZE = 40 * MIB

    def peak(self, *args, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL):
        """The most memory that the tool had, in bytes, as long as we could see it."""
        process = subprocess.Popen([RDRIVE, *map(str, args)], stdin=stdin, stdout=stdout, env=daemon_environment())
        peak = 0
        while process.poll() is None:
            seen = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
            peak = max(peak, int(seen[1]) * KIB if seen else 0)  # an ended one has none
        self.assertEqual(process.returncode, 0, args)
        return peak

    def test_a_large_value_passes_in_little_memory(self):
        value = noise("large", self.SIZE)
        source, target = self.folder / "in", self.folder / "out"
        source.write_bytes(value)
        url = self.start_writable()
        self.done("put", url, "small", "v")
        least = self.peak("get", url, "small")
        with source.open("rb") as stdin:
            put = self.peak("put", url, "large", stdin=stdin)
        with target.open("wb") as stdout:
            get = self.peak("get", url, "large", stdout=stdout)
        self.assertEqual(target.read_bytes(), value)
        tell(f"put and get of {self.SIZE // MIB} MiB: {(put - least) / MIB:.1f} and {(get - least) / MIB:.1f} MiB of "
             f"memory more than of 1 byte ({least / MIB:.1f} MiB)")
        if SANITIZE != "thread":  # whose shadow grows with what is touched
            self.assertLess(max(put, get) - least, 10 * MIB * SLOWDOWN)


class Tls(RemoteTest):
    def setUp(self):
        super().setUp()
        self.authority = Authority(self.folder)
        self.pair = self.authority.issue()

    def start_tls(self, *args):
        self.daemon = self.serve(self.served, "--tls-cert", self.pair.cert, "--tls-key", self.pair.key, *args)
        return "grpcs://" + self.daemon.address()

    def test_a_server_whose_certificate_leads_to_the_ca_is_believed(self):
        shutil.copy(VALID / "05_deletes.srd", self.served)
        url = self.start_tls()
        self.assertEqual(self.done("last", url, "--ca", self.authority.pair.cert), self.done("last", self.served))

    def test_a_bench_asks_over_it_too(self):
        run("put", "--create", self.served, "k", "v")
        url = self.start_tls()
        told = self.done("bench", url, "--ca", self.authority.pair.cert, "--key-list", "-", "--operations", "5",
                         "--inflight", "2", "--json", stdin=b"k\n")
        self.assertEqual(json.loads(told)["hits"], 5)

    def test_no_other_server_is_believed(self):
        shutil.copy(VALID / "05_deletes.srd", self.served)
        url = self.start_tls()
        other = Authority(self.folder, "other")
        for ca in [["--ca", other.pair.cert], []]:
            self.refuses(2, "last", url, *ca, says=f"cannot reach {url}: ")
            self.assertIn("--ca", self.refuses(2, "last", url, *ca))
        self.refuses(2, "last", url.replace("grpcs", "grpc"), says=("cannot reach grpc://", "may want TLS: grpcs://"))

    def test_a_server_of_another_name_is_not_believed(self):
        shutil.copy(VALID / "05_deletes.srd", self.served)
        self.pair = self.authority.issue("DNS:elsewhere.example")
        url = self.start_tls()
        self.refuses(2, "last", url, "--ca", self.authority.pair.cert, says=f"cannot reach {url}: ")

    def test_a_file_that_is_no_certificate_is_told(self):
        text = self.folder / "text"
        text.write_text("no certificate")
        for option in [["--ca", text], ["--cert", text, "--key", self.pair.key]]:
            self.refuses(2, "info", "grpcs://127.0.0.1:1", *option, says=(str(text), "PEM"))
        self.refuses(2, "info", "grpcs://127.0.0.1:1", "--ca", self.folder / "none", says=("none", "No such file"))
        self.refuses(2, "info", "grpcs://127.0.0.1:1", "--ca", self.pair.key, says=(str(self.pair.key), "no certificate"))

    def test_a_key_of_another_certificate_is_told_before_anything_is_sent(self):
        other = self.authority.issue()
        self.refuses(2, "info", "grpcs://127.0.0.1:1", "--cert", self.pair.cert, "--key", other.key,
                     says=(str(other.key), "not the key of the first certificate"))

    def test_a_server_without_tls_is_told(self):
        run("put", "--create", self.served, "k", "v")
        url = self.start()
        self.refuses(2, "last", url.replace("grpc", "grpcs"), says=("cannot reach grpcs://", "may not speak TLS: grpc://"))

    def test_a_writer_shows_its_certificate(self):
        writer, reader = self.authority.issue("DNS:writer"), self.authority.issue("DNS:reader")
        url = self.start_tls("--tls-client-ca", self.authority.pair.cert, "--writable", "--create", "--allow-writer",
                             "writer")
        ca = ["--ca", self.authority.pair.cert]
        self.done("put", url, "k", "v", *ca, "--cert", writer.cert, "--key", writer.key)
        self.assertEqual(self.done("get", url, "k", *ca, "--cert", reader.cert, "--key", reader.key), b"v")
        self.refuses(2, "put", url, "k", "w", *ca, "--cert", reader.cert, "--key", reader.key, says=(url, 'key "k"'))
        self.refuses(2, "get", url, "k", *ca, says=(f"cannot reach {url}: ", "may ask for a certificate: --cert"))


if __name__ == "__main__":
    unittest.main()
