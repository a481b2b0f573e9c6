"""`rdrive` writing to a store that is served, and values that go from one store to another."""

import base64
import json
import os
import pty
import shutil
import unittest
import zlib

from support import MIB, Code, entry_pb2, noise, reader_pb2, writer_pb2
from test_remote import VALID, RemoteTest, run
from test_remote_failures import Liar


class Writing(RemoteTest):
    def stores_are_equal(self, url):
        """Each key of the path has its value over the wire, and there are as many."""
        entries = [json.loads(line) for line in self.done("export", self.path).splitlines()]
        for entry in entries[:40]:
            self.assertEqual(self.done("get", "--hash", url, entry["key_hash"]),
                             base64.b64decode(entry["value_base64"]))
        self.assertEqual(json.loads(self.done("info", "--json", url))["live_keys"], len(entries))

    def test_each_writing_verb_does_as_on_the_path(self):
        url = self.start_writable()
        steps = [(["put", "k", "v"], b""), (["put", "k", "-"], bytes(range(256)) * 100), (["put", "z", ""], b""),
                 (["put", "z"], b""), (["put", "z"], b"\0"), (["put", "zz"], b"\0\0"), (["put", "one"], b"1"),
                 (["put", "--hash", "0123456789abcdef", "by hash"], b""), (["put", "--hex-key", "00ff", "by hex"], b""),
                 (["put", "--namespace", "n", "k", "in n"], b""), (["rename", "k", "l"], b""),
                 (["rename", "k", "l"], b""), (["rename", "--namespace", "n", "k", "m"], b""), (["delete", "zz"], b""),
                 (["delete", "zz"], b""), (["delete", "x", "y"], b""), (["delete", "one", "nothing"], b""),
                 (["delete", "--hash", "0123456789abcdef"], b""), (["last", "--json"], b""),
                 (["put", "", "the empty key"], b""), (["get", ""], b"")]
        for args, stdin in steps:
            with self.subTest(args=args):
                self.same(*args, url=url, stdin=stdin)
        self.stores_are_equal(url)

    def test_an_import_writes_the_same_store(self):
        url = self.start_writable()
        lines = b"".join(b"key-%d\tvalue %d\n" % (i, i) for i in range(2500))
        self.same("import", url=url, stdin=lines)
        sizes = [1, 70_000, 3_000_000, 2_000_000, 20_000_000, 1]
        self.same("import", url=url, stdin=b"".join(b"k%d\t%s\n" % (i, b"x" * size) for i, size in enumerate(sizes)))
        for bad in [b"no tab\n", b"k\t\n", b"good\tv\nbad\n"]:
            self.same("import", url=url, stdin=b"a\tb\n" + bad)
        self.stores_are_equal(url)

    def test_an_import_keeps_to_the_limits_of_its_server(self):
        url = self.start_writable("--max-batch-keys", "7", "--max-request-bytes", "65536")
        sizes = [1, 30_000, 30_000, 30_000, 65_536, 65_500, 65_400, 200_000, *[1] * 100]
        self.same("import", url=url, stdin=b"".join(b"k%d\t%s\n" % (i, b"x" * size) for i, size in enumerate(sizes)))
        self.same("put", "k", url=url, stdin=noise("k", 300_000))
        self.same("put", "arg", "v" * 100_000, url=url)
        self.stores_are_equal(url)

    def test_what_a_server_refuses_is_told_in_its_words(self):
        url = self.start_writable("--max-value-bytes", "100000")
        self.refuses(2, "put", url, "k", stdin=b"x" * 100_001, says=(url, 'key "k"', "larger than the largest value"))
        self.refuses(1, "get", url, "k", says="no value")
        self.done("put", url, "k", stdin=b"x" * 100_000)

    def test_a_server_that_takes_no_writes_says_so(self):
        shutil.copy(VALID / "05_deletes.srd", self.served)
        before = self.served.read_bytes()
        url = self.start()
        for verb, *args in [["put", "k", "v"], ["put", "k"], ["delete", "k"], ["rename", "k", "l"], ["compact"]]:
            self.refuses(2, verb, url, *args, stdin=b"v", says=(url, "--writable"))
        self.refuses(2, "import", url, stdin=b"a\tb\n", says=(url, "--writable", "line 1 on"))
        self.assertEqual(self.served.read_bytes(), before)

    def test_what_is_not_durable_yet_is_told(self):
        url = self.start_writable("--sync", "none")
        for verb, *args in [["put", "k", "v"], ["put", "k"], ["delete", "k"], ["import"]]:
            done = run(verb, url, *args, stdin=b"a\tb\n")
            self.assertEqual((done.returncode, done.stdout), (0, b""), done.stderr)
            self.assertIn(b"not yet durable", done.stderr)
        self.assertEqual(self.done("get", url, "a"), b"b")

    def test_a_compaction_gives_back_what_is_superseded(self):
        url = self.start_writable()
        for value in ["first", "second", "third"]:
            self.same("put", "k", value, url=url)
        before = json.loads(self.done("info", "--json", url))
        self.same("compact", url=url)
        after = json.loads(self.done("info", "--json", url))
        self.assertEqual((before["entries"], after["entries"]), (3, 1))
        self.assertGreater(after["generation"], before["generation"])
        self.assertEqual(self.done("get", url, "k"), b"third")

    def test_a_compaction_shows_its_bar_on_a_terminal_only(self):
        url = self.start_writable()
        self.done("put", url, "k", "v")
        master, terminal = pty.openpty()
        self.assertEqual(run("compact", url, stderr=terminal).returncode, 0)
        os.close(terminal)
        self.assertIn(b"compact", os.read(master, 4096))
        os.close(master)


class Transferring(RemoteTest):
    def test_a_copy_goes_from_a_server_to_a_file_and_back(self):
        value = noise("value", 3 * MIB)
        url = self.start_writable()
        self.done("put", url, "k", stdin=value)
        self.done("copy", url, "k", self.path)
        self.assertEqual(self.done("get", self.path, "k"), value)
        self.done("put", self.path, "other", "v")
        self.done("copy", self.path, "other", url)
        self.assertEqual(self.done("get", url, "other"), b"v")
        self.assertEqual(self.done("get", url, "k"), value)

    def test_a_copy_goes_from_server_to_server(self):
        one, two = self.start_writable(), None
        two = "grpc://" + self.serve(self.folder / "two.srd", "--writable", "--create").address()
        self.done("put", one, "k", "v")
        self.done("copy", one, "k", two)
        self.assertEqual(self.done("get", two, "k"), b"v")
        self.done("move", one, "k", two)
        self.refuses(1, "get", one, "k", says="no value")
        self.assertEqual(self.done("get", two, "k"), b"v")

    def test_a_move_deletes_the_key_where_it_came_from(self):
        url = self.start_writable()
        self.done("put", url, "k", "v")
        self.done("move", url, "k", self.path)
        self.refuses(1, "get", url, "k", says="no value")
        self.done("move", self.path, "k", url)
        self.refuses(1, "get", self.path, "k", says="no value")
        self.assertEqual(self.done("get", url, "k"), b"v")

    def test_a_move_from_a_server_that_only_reads_writes_nothing(self):
        run("put", "--create", self.served, "k", "v")
        url, target = self.start(), self.folder / "target.srd"
        self.refuses(2, "move", url, "k", target, "--create", says=(url, 'key "k"', "--writable"))
        self.assertFalse(target.exists())

    def test_a_move_whose_deletion_fails_says_that_both_have_it(self):
        value = entry_pb2.Entry(payload=b"v", metadata=entry_pb2.EntryMetadata(checksum=zlib.crc32(b"v")))
        fragment = entry_pb2.PayloadFragment(data=b"v", payload_size=1, metadata=value.metadata)
        deletes = iter([writer_pb2.BatchDeleteKeyHashesResponse(commit=writer_pb2.Commit(durable=True))])

        def delete(request, context):
            return next(deletes, None) or context.abort(Code.INTERNAL, "the disk is gone")

        liar = Liar(ReadMetadata=lambda request, context: reader_pb2.ReadMetadataResponse(metadata=value.metadata),
                    ReadStream=lambda request, context: iter([reader_pb2.ReadStreamResponse(fragment=fragment)]),
                    BatchDeleteKeyHashes=delete)
        self.addCleanup(liar.stop)
        self.refuses(2, "move", liar.url, "k", self.path, "--create",
                     says=(liar.url, "TARGET has it, but STORE did not delete it", "the disk is gone"))
        self.assertEqual(self.done("get", self.path, "k"), b"v")

    def test_a_move_onto_itself_keeps_the_key(self):
        url = self.start_writable("--listen", f"unix:{self.folder}/socket", "--listen", "127.0.0.1:0")
        addresses = [event["address"] for event in self.daemon.events("listening")]
        self.assertEqual(len(addresses), 2)
        self.done("put", url, "k", "v")
        self.refuses(2, "move", f"unix:{self.folder}/socket", "k", "grpc://" + addresses[1], says="STORE keeps it")
        self.assertEqual(self.done("get", "grpc://" + addresses[1], "k"), b"v")

    def test_a_move_to_what_is_not_durable_keeps_the_key(self):
        url = self.start_writable("--sync", "none")
        self.done("put", self.path, "k", "v")
        done = run("move", self.path, "k", url)
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertIn(b"not durably", done.stderr)
        self.assertEqual(self.done("get", self.path, "k"), b"v")
        self.assertEqual(self.done("get", url, "k"), b"v")

    def test_an_absent_key_makes_no_store(self):
        url = self.start_writable()
        new = self.folder / "new.srd"
        for verb in ["copy", "move"]:
            self.refuses(1, verb, url, "k", new, "--create", says=('key "k"', "no value"))
            self.refuses(1, verb, self.path, "k", url, says=('key "k"', "no value"))
        self.assertFalse(new.exists())


if __name__ == "__main__":
    unittest.main()
