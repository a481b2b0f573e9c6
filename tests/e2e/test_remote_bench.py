"""`rdrive bench` on a store that is served: which keys it asks for, what it counts and what it tells of wrong answers."""

import json
import unittest
import zlib

from support import entry_pb2, make_store, noise, reader_pb2
from test_remote import RemoteTest, run
from test_remote_failures import Liar

VALUES = {b"key-%d" % i: noise(i, 2 * (i + 1)) for i in range(200)}
LARGE = {b"large-%d" % i: noise(i, 3_000_000 + i) for i in range(2)}


class BenchTest(RemoteTest):
    def listed(self, *keys, name="keys"):
        path = self.folder / name
        path.write_bytes(b"".join(key + b"\n" for key in keys))
        return path

    def serve_values(self, *args):
        make_store(self.served, VALUES | LARGE)
        return self.start(*args)

    def bench(self, url, *options, stderr=b"", status=0, **more):
        """The JSON document of a run, whose parts must agree with each other."""
        done = run("bench", url, "--json", *options, **more)
        self.assertEqual((done.returncode, done.stderr), (status, stderr), options)
        told = json.loads(done.stdout)
        self.assertEqual(told["keys"], told["calls"] * told["config"]["batch"])
        self.assertEqual(told["calls"], sum(bucket["calls"] for bucket in told["histogram"]))
        self.assertEqual(told["keys"], told["hits"] + told["absent"] + told["failed"])
        self.assertEqual((told["path"], told["config"]["verify"]), (url, "by the server"))
        return told


class Counting(BenchTest):
    def test_so_many_operations_are_made_whatever_is_in_flight(self):
        url, keys = self.serve_values(), self.listed(*VALUES)
        for operations, threads, inflight, batch in [(1, 1, 1, 1), (1, 2, 8, 1), (100, 1, 16, 1), (50, 3, 4, 7),
                                                     (500, 2, 64, 3)]:
            told = self.bench(url, "--key-list", keys, "--operations", str(operations), "--threads", str(threads),
                              "--inflight", str(inflight), "--batch", str(batch))
            self.assertEqual((told["calls"], told["absent"], told["failed"]), (operations, 0, 0))
            self.assertEqual((told["config"]["inflight"], told["gathered_keys"]), (inflight, len(VALUES)))
            self.assertGreater(told["part_in_calls"], 0)

    def test_a_run_of_so_many_seconds_ends_and_misses_are_absent(self):
        url, keys = self.serve_values(), self.listed(*VALUES)
        for batch in ["1", "20"]:
            told = self.bench(url, "--key-list", keys, "--duration", "0.05", "--misses", "100", "--inflight", "4",
                              "--batch", batch)
            self.assertEqual(told["absent"], told["keys"])
            self.assertGreaterEqual(told["seconds"], 0.05)

    def test_equal_seeds_ask_for_equal_keys_and_as_on_the_path(self):
        url, keys = self.serve_values(), self.listed(*VALUES)
        options = ["--key-list", keys, "--operations", "200", "--seed"]
        sums = [self.bench(url, *options, seed)["payload_bytes"] for seed in ["1", "1", "2"]]
        self.assertEqual(sums[0], sums[1])
        self.assertNotEqual(sums[0], sums[2])
        self.assertEqual(json.loads(self.done("bench", self.served, "--json", *options, "1"))["payload_bytes"], sums[0])

    def test_large_values_come_whole_by_read_and_in_fragments(self):
        url, keys = self.serve_values(), self.listed(*LARGE)
        for options in [["--batch", "1"], ["--batch", "5"], ["--batch", "2", "--inflight", "3"]]:
            told = self.bench(url, "--key-list", keys, "--operations", "6", *options)
            self.assertEqual(told["payload_bytes"] // 3_000_000, told["keys"])

    def test_the_keys_of_a_list_are_given_as_the_key_options_say(self):
        url = self.serve_values()
        hashes = self.done("hash", *[key.decode() for key in VALUES]).splitlines()
        for option, words in [("--hash", hashes), ("--hex-key", [key.hex().encode() for key in VALUES])]:
            told = self.bench(url, option, "--key-list", "-", "--operations", "10",
                              stdin=b"\n".join(words))
            self.assertEqual(told["gathered_keys"], len(VALUES))

    def test_absent_keys_of_the_list_are_left_out_and_told(self):
        url = self.serve_values()
        keys = self.listed(b"key-1", b"none", b"key-2", b"nor this")
        told = self.bench(url, "--key-list", keys, "--operations", "10",
                          stderr=f"rdrive: {url}: 2 keys of the list left out: absent\n".encode())
        self.assertEqual((told["gathered_keys"], told["absent"]), (2, 0))
        self.refuses(2, "bench", url, "--key-list", self.listed(b"none"), says="none that the list names is there")
        self.refuses(2, "bench", url, "--key-list", self.listed(), says="there is no key to read")

    def test_keys_whose_values_are_beyond_an_answer_are_left_out_and_told(self):
        large = {b"large-%d" % i: noise(i, 4_200_000 + i) for i in range(2)}
        make_store(self.served, VALUES | large)
        url = self.start()
        first = self.done("metadata", url, "large-0").split()[1].decode()
        for keys in [(b"key-1", *large), tuple(large) + (b"key-1",), (*VALUES, *large)]:
            with self.subTest(keys=keys[:3]):
                listed = self.listed(*keys)
                told = self.bench(url, "--key-list", listed, "--operations", "10", stderr=(
                    f"rdrive: {url}: 2 keys of the list left out: larger than the 4194304 bytes of an answer; the first is "
                    f"key hash {first}; with --batch 2 or more they come\n").encode())
                self.assertEqual(told["hits"], 10)
                told = self.bench(url, "--key-list", listed, "--operations", "2", "--batch", "2")
                self.assertEqual(told["hits"], 4)
        told = self.bench(url, "--key-list", self.listed(b"large-0"), "--operations", "2", "--batch", "2")
        self.assertEqual(told["hits"], 4)

    def test_the_table_names_what_is_in_flight(self):
        url = self.serve_values()
        text = self.done("bench", url, "--key-list", self.listed(b"key-1"), "--operations", "5", "--inflight", "3").decode()
        self.assertIn("reads of 1 of 1 keys, uniform; threads 1, in flight 3 each, keys a call 1", text)
        self.assertIn("\ncalls        5\n", text)


class Refusing(BenchTest):
    def test_a_server_cannot_say_which_keys_it_has(self):
        self.refuses(64, "bench", "grpc://h:1", says=("--key-list", "no iteration"))

    def test_key_options_belong_to_a_list(self):
        self.refuses(64, "bench", self.path, "--hash", says="--hash came without --key-list")

    def test_a_list_that_cannot_be_read_is_told(self):
        url = self.serve_values()
        self.refuses(2, "bench", url, "--key-list", self.folder / "none", says=("none", "No such file"))
        self.refuses(2, "bench", url, "--key-list", self.listed(b"a\0b"), says="zero byte")
        self.refuses(64, "bench", url, "--hash", "--key-list", self.listed(b"abc"), says=('"abc"', "16 hex digits"))

    def test_a_batch_beyond_the_servers_limit_is_told_in_its_words(self):
        url = self.serve_values("--max-batch-keys", "100")
        self.refuses(2, "bench", url, "--key-list", self.listed(b"key-1"), "--batch", "101", says=(url, "100"))

    def test_a_list_of_values_beyond_an_answer_is_told_with_what_to_do(self):
        make_store(self.served, {b"large": noise("l", 5_000_000)})
        self.refuses(2, "bench", self.start(), "--key-list", self.listed(b"large"), says=("larger", "--batch 2"))


class Lying(BenchTest):
    """Servers whose answers are wrong are found out."""

    HASH = 0xA921E3704FDA881D  # of "k"

    def lie(self, **answers):
        liar = Liar(**answers)
        self.addCleanup(liar.stop)
        return liar

    def entry(self, value=b"value", checked=None, **fields):
        fields = {"key_hash": self.HASH, "checksum": zlib.crc32(checked or value), **fields}
        return entry_pb2.Entry(payload=value, metadata=entry_pb2.EntryMetadata(**fields))

    def test_a_value_that_is_wrong_is_counted_and_its_hash_is_told(self):
        right = reader_pb2.ReadWithKeyHashResponse(entry=self.entry())
        for wrong, says in [(self.entry(b"eulav", b"value"), "not the bytes"), (self.entry(key_hash=1), "another key's"),
                            (self.entry(b"other"), "not the value that was there")]:
            with self.subTest(says=says):
                answers = iter([right])  # to the gathering; wrong ones from then on
                liar = self.lie(ReadWithKeyHash=lambda request, context: next(
                    answers, reader_pb2.ReadWithKeyHashResponse(entry=wrong)))
                done = run("bench", liar.url, "--key-list", self.listed(b"k"), "--operations", "5")
                self.assertEqual(done.returncode, 2)
                self.assertIn(f"key hash {self.HASH:016x}: value check: ".encode(), done.stderr)
                self.assertIn(says.encode(), done.stderr)
                self.assertIn(b"5 wrong answers", done.stderr)

    def test_a_batch_stream_that_cannot_be_ends_the_run(self):
        item = entry_pb2.BatchReadItem
        first = [item(index=0, entry=self.entry()), item(index=1, entry=self.entry())]

        def fragments(*parts):
            return [item(index=0, fragment=entry_pb2.PayloadFragment(data=data, payload_offset=at, payload_size=size))
                    for data, at, size in parts]

        for items, says in [
            ([], "missing"), (first[:1], "missing"), (first[::-1], "not the one that follows"),
            (first + [item(index=2, entry=self.entry())], "not the one that follows"),
            ([first[0], first[0]], "not the one that follows"),
            (fragments((b"va", 0, 5), (b"lu", 3, 5)), "fragment is not the one"),
            (fragments((b"va", 0, 5), (b"luex", 2, 5)), "fragment is not the one"),
            (fragments((b"", 0, 5)), "fragment is not the one"), (fragments((b"va", 0, 1)), "fragment is not the one"),
            (fragments((b"va", 0, 5), (b"l", 2, 6)), "fragment is not the one"),
            (fragments((b"va", 0, (1 << 64) - 1)), "no memory"),
            (fragments((b"va", 0, 5)) + first, "ends before its end"), (fragments((b"va", 0, 5)), "ends before its end"),
        ]:
            with self.subTest(says=says, items=len(items)):
                message = reader_pb2.BatchReadHashedKeysResponse(items=items)
                self.batch_ends([message], says)
        for raw in [b"\x0a\x05\x08", b"\xff", b"\x0b", b"\x0a\x03\x12\x05a", b"\x0a\x02\x12\xff"]:
            with self.subTest(raw=raw):
                self.batch_ends([raw], "malformed")

    def batch_ends(self, messages, says):
        liar = self.lie(ReadWithKeyHash=lambda request, context: reader_pb2.ReadWithKeyHashResponse(entry=self.entry()),
                        BatchReadHashedKeys=lambda request, context: iter(messages))
        self.refuses(2, "bench", liar.url, "--key-list", self.listed(b"k"), "--batch", "2", "--operations", "5",
                     says=("the server's answer: ", says))

    def test_errors_and_outcomes_of_another_time_are_wrong_answers(self):
        damaged = entry_pb2.BatchReadItem(index=0, error=entry_pb2.ItemError(
            code=15, reason="DAMAGED", message="damaged: the stored bytes do not match their checksum"))
        unknown = b"\x0a\x04\x08\x01\x72\x00"  # index 1, an outcome with number 14
        message = reader_pb2.BatchReadHashedKeysResponse(items=[damaged]).SerializeToString() + unknown
        liar = self.lie(ReadWithKeyHash=lambda request, context: reader_pb2.ReadWithKeyHashResponse(entry=self.entry()),
                        BatchReadHashedKeys=lambda request, context: iter([message]))
        done = run("bench", liar.url, "--key-list", self.listed(b"k"), "--batch", "2", "--operations", "1")
        self.assertEqual(done.returncode, 2)
        self.assertIn(b"damaged: the stored bytes", done.stderr)
        self.assertIn(b"2 wrong answers", done.stderr)


if __name__ == "__main__":
    unittest.main()
