"""Damaged files through the daemon: each file of fixtures/damaged as its expectations say, and what the scrub finds."""

import hashlib
import json
import unittest
import zlib

from support import FIXTURES, KIB, MIB, Code, DaemonTest, entry_pb2, eventually, make_store, noise, reader_pb2

CASES = json.loads((FIXTURES / "damaged" / "expect.json").read_text())["cases"]
# Where damage is found, by its end; entries of the base store end at 30, 256 and 373.
ENTRY, LINK = "a damaged entry of a known key", "an entry whose link alone is damaged: it is served"
FOUND = {"a_flip_crc_first.bin": (30, ENTRY), "a_flip_crc_middle.bin": (256, ENTRY),
         "a_flip_payload_last.bin": (373, ENTRY), "a_flip_prev_bit6_first.bin": (30, LINK),
         "a_flip_prev_bit6_middle.bin": (256, LINK)}
DAMAGED, ABSENT = "DAMAGED", "ABSENT"


def number(key_hash):
    return int(key_hash, 16)


class Stub:
    """Reads by hash, as a payload, or as the reason why there is none."""

    def __init__(self, test, daemon):
        self.test, self.stub = test, daemon.reader_stub()

    def info(self):
        return self.stub.GetStoreInfo(reader_pb2.GetStoreInfoRequest())

    def read(self, key_hash):
        request = reader_pb2.ReadWithKeyHashRequest(key_hash=key_hash)
        code = self.test.code_of(lambda: self.stub.ReadWithKeyHash(request))
        if code != Code.OK:
            self.test.fails(Code.DATA_LOSS, lambda: self.stub.ReadWithKeyHash(request), reason=DAMAGED)
            return DAMAGED
        answer = self.stub.ReadWithKeyHash(request)
        if not answer.HasField("entry"):
            return ABSENT
        self.test.assertEqual(zlib.crc32(answer.entry.payload), answer.entry.metadata.checksum)
        return answer.entry.payload

    def batch(self, key_hashes):
        request = reader_pb2.BatchReadHashedKeysRequest(key_hashes=key_hashes)
        items = [item for message in self.stub.BatchReadHashedKeys(request) for item in message.items]
        self.test.assertEqual([item.index for item in items], list(range(len(key_hashes))))
        return [item.entry.payload if item.HasField("entry") else item.error.reason if item.HasField("error")
                else ABSENT for item in items]

    def key(self, key):
        answer = self.stub.Read(reader_pb2.ReadRequest(key=key))
        return answer.entry.payload if answer.HasField("entry") else ABSENT


class EveryDamagedFile(DaemonTest):
    def each_case(self, opens, test):
        cases = [case for case in CASES if case["opens"] == opens]
        self.assertGreater(len(cases), 1)
        for case in cases:
            folder = self.folder / case["file"]
            folder.mkdir()
            copy = folder / "store.srd"
            data = (FIXTURES / "damaged" / case["file"]).read_bytes()
            copy.write_bytes(data)
            with self.subTest(file=case["file"]):
                test(case, copy)
                # read-only means read-only: neither a byte nor a name has changed
                self.assertEqual(copy.read_bytes(), data)
                self.assertEqual([path.name for path in folder.iterdir()], ["store.srd"])

    def assert_payload(self, payload, row):
        self.assertNotIn(payload, (DAMAGED, ABSENT))
        self.assertEqual(hashlib.sha256(payload).hexdigest(), row["sha256"])

    def assert_outcomes(self, case, outcomes):
        intact = {key: row for each in CASES if each["file"].endswith("_intact.bin") for key, row in each["serve"].items()}
        for key_hash, row in case["serve"].items():
            self.assert_payload(outcomes[key_hash], row)
        for key_hash in case["damaged"]:
            self.assertIn(outcomes[key_hash], (DAMAGED, ABSENT))
        for key_hash in case["link_damaged"]:
            if case["file"] == "a_flip_prev_high_last.bin":  # the file's end proves nothing, so it may be a torn one
                self.assertEqual(outcomes[key_hash], DAMAGED)
            elif key_hash in intact:
                self.assert_payload(outcomes[key_hash], intact[key_hash])
            else:
                self.assertIsInstance(outcomes[key_hash], bytes)
        for key_hash in case["gone"] + case["deleted"]:
            self.assertEqual(outcomes[key_hash], ABSENT)
        for key_hash in case.get("never", []):
            self.assertIn(outcomes[key_hash], (ABSENT, DAMAGED) if case["file"] == "n_trunc_286.bin" else (ABSENT,))

    def assert_told(self, case, daemon, info):
        """GetStoreInfo and the log say the same."""
        ranges = [(each.offset, each.size, each.what) for each in info.damaged_ranges]
        logged = [(int(each["offset"]), int(each["bytes"]), each["what"]) for each in daemon.events("damaged range")]
        self.assertEqual(logged, ranges)
        totals = daemon.events("damage")
        self.assertEqual([int(each["ranges"]) for each in totals], [len(ranges)] if ranges else [])
        if case["file"] in FOUND:
            self.assertEqual([(offset + size, what) for offset, size, what in ranges], [FOUND[case["file"]]])
            self.assertEqual(info.damaged_entries, int(FOUND[case["file"]][1] == ENTRY))
        if case["file"].endswith("_intact.bin"):
            self.assertEqual((ranges, info.damaged_entries), ([], 0))

    def assert_opens(self, case, copy):
        daemon = self.serve(copy)
        stub = Stub(self, daemon)
        info = stub.info()
        hashes = [key_hash for field in ("serve", "damaged", "link_damaged", "gone", "deleted", "never")
                  for key_hash in case.get(field, [])]
        single = {key_hash: stub.read(number(key_hash)) for key_hash in hashes}
        self.assert_outcomes(case, single)
        self.assertEqual(stub.batch([number(key_hash) for key_hash in hashes]), [single[each] for each in hashes])
        served = sum(1 for outcome in single.values() if isinstance(outcome, bytes))
        flipped = int("flip_hash" in case["file"])  # shows under a hash that nobody lists
        self.assertEqual((info.live_keys, info.file_size), (served + flipped, case["size"]))
        unread = info.file_size - info.tail_offset
        daemon.stop()
        tails = [(int(each["offset"]), int(each["bytes"])) for each in daemon.events("unfinished tail")]
        self.assertEqual(tails, [(info.tail_offset, unread)] if unread else [])
        self.assert_told(case, daemon, info)

    def assert_refused(self, case, copy):
        lines = [line for line in self.refused(copy) if "level=error" in line]
        self.assertEqual(len(lines), 1, lines)
        self.assertIn(str(copy), lines[0])
        self.assertIn("not a simd-r-drive store", lines[0])

    def assert_either(self, case, copy):
        daemon = self.serve(copy)
        stub = Stub(self, daemon)
        for key_hash in stub.stub.BatchRead(reader_pb2.BatchReadRequest(keys=[b"a", b"b", b"c"])).items:
            if key_hash.HasField("entry"):
                self.assertEqual(zlib.crc32(key_hash.entry.payload), key_hash.entry.metadata.checksum)
        daemon.stop()

    def test_what_opens_serves_what_holds_and_names_what_does_not(self):
        self.each_case(True, self.assert_opens)

    def test_what_is_no_store_is_refused_in_one_line(self):
        self.each_case(False, self.assert_refused)

    def test_what_the_other_engine_ruined_serves_nothing_false(self):
        self.each_case("any", self.assert_either)


def entries_of(data):
    """(payload's start, trailer's offset, link, key hash) of each entry, oldest first."""
    out, end = [], len(data)
    while end > 0:
        trailer = end - 20
        key_hash, link = (int.from_bytes(data[trailer + at:trailer + at + 8], "little") for at in (0, 8))
        start = link if trailer - link == 1 and data[link] == 0 else (link + 63) // 64 * 64
        out.append((start, trailer, link, key_hash))
        end = link
    return out[::-1]


class LargePayloads(DaemonTest):
    """Opening leaves payloads above 64 KiB unchecked: what is wrong with them comes to light later."""

    def setUp(self):
        super().setUp()
        self.path = self.folder / "store.srd"
        self.big = noise("big", 3 * MIB)
        make_store(self.path, {b"first": b"the first", b"hidden": b"the hidden", b"big": self.big, b"last": b"the last"})

    def change(self, test):
        data = bytearray(self.path.read_bytes())
        test(data, entries_of(data))
        self.path.write_bytes(data)

    def flip(self, data, entries):
        data[entries[2][0] + MIB] ^= 1

    def hide(self, data, entries):
        """Nothing leads to "hidden" any more: the link of "big" names the end of "first"."""
        trailer, link = entries[2][1], entries[1][2]
        data[trailer + 8:trailer + 16] = link.to_bytes(8, "little")

    def assert_others(self, stub):
        for name in (b"first", b"last"):
            self.assertEqual(stub.key(name), b"the " + name)

    def told_of_range(self, daemon):
        """The log's lines about damage, up to one that knows of a range."""
        told = [daemon.event("damage")]
        while told[-1]["ranges"] == "0":
            told.append(daemon.event("damage", len(told) + 1))
        return told

    def assert_flip_found(self, daemon, stub):
        # The key is told of as soon as its check fails, and once more when the recovery around it names the range.
        told = [(each["damaged_keys"], each["ranges"], each["unidentified"]) for each in self.told_of_range(daemon)]
        self.assertEqual(told[-1], ("1", "1", "0"))
        self.assertLessEqual(set(told[:-1]), {("1", "0", "0")})
        info = stub.info()
        self.assertEqual((info.damaged_entries, info.live_keys, info.generation), (1, 3, 2))
        self.assertEqual([each.what for each in info.damaged_ranges], [ENTRY])
        self.fails(Code.DATA_LOSS, lambda: stub.key(b"big"), reason=DAMAGED)
        self.assertEqual(stub.key(b"hidden"), b"the hidden")
        self.assert_others(stub)

    def test_the_scrub_finds_a_flipped_bit_that_nobody_reads(self):
        self.change(self.flip)
        daemon = self.serve(self.path, "--scrub-rate", "1024G")
        self.assert_flip_found(daemon, Stub(self, daemon))
        self.assertEqual(len(daemon.events("damaged range")), 1)

    def test_without_a_scrub_the_first_read_finds_it(self):
        self.change(self.flip)
        daemon = self.serve(self.path, "--scrub-rate", "0")
        stub = Stub(self, daemon)
        self.assertEqual(stub.info().damaged_entries, 0)
        self.fails(Code.DATA_LOSS, lambda: stub.key(b"big"), reason=DAMAGED)
        eventually(lambda: stub.info().generation == 2, "a late recovery")
        self.assert_flip_found(daemon, stub)

    def test_what_a_damaged_link_hid_appears_with_the_scrub(self):
        self.change(self.hide)
        without = self.serve(self.path, "--scrub-rate", "0")
        self.assertEqual(Stub(self, without).key(b"hidden"), ABSENT)
        daemon = self.serve(self.path, "--scrub-rate", "1024G")
        told = daemon.event("damage")
        self.assertEqual((told["damaged_keys"], told["ranges"]), ("0", "1"))
        stub = Stub(self, daemon)
        self.assertEqual([each.what for each in stub.info().damaged_ranges], [LINK])
        self.assertEqual(stub.key(b"hidden"), b"the hidden")
        self.assertEqual(stub.key(b"big"), self.big)
        self.assert_others(stub)

    def test_so_does_what_a_superseded_entrys_link_hid(self):
        self.change(self.hide)
        data = bytearray(self.path.read_bytes())
        make_store(self.path, {b"big": b"a newer big"})
        self.assertEqual(self.path.read_bytes()[:len(data)], data)
        daemon = self.serve(self.path, "--scrub-rate", "1024G")
        daemon.event("damage")
        stub = Stub(self, daemon)
        self.assertEqual(stub.key(b"hidden"), b"the hidden")
        self.assertEqual(stub.key(b"big"), b"a newer big")
        self.assert_others(stub)

    def test_a_read_of_it_makes_it_appear_too(self):
        self.change(self.hide)
        daemon = self.serve(self.path, "--scrub-rate", "0")
        stub = Stub(self, daemon)
        self.fails(Code.DATA_LOSS, lambda: stub.key(b"big"), reason=DAMAGED)
        eventually(lambda: stub.info().generation == 2, "a late recovery")
        self.assertEqual(stub.key(b"hidden"), b"the hidden")
        self.assertEqual(stub.key(b"big"), self.big)  # only its link is damaged

    def test_an_intact_store_has_nothing_to_tell(self):
        daemon = self.serve(self.path, "--scrub-rate", "1024G")
        stub = Stub(self, daemon)
        self.assertEqual(stub.key(b"big"), self.big)
        daemon.stop()
        self.assertEqual(daemon.events("damage") + daemon.events("damaged range"), [])

    def test_damage_in_a_hundred_places_and_more_is_listed_a_hundred_times_and_counted_whole(self):
        path = make_store(self.folder / "many.srd", {b"key %d" % i: noise(i, 2 * KIB) for i in range(300)})
        data = bytearray(path.read_bytes())
        for start, _, _, _ in entries_of(data)[:-1:2]:
            data[start] ^= 255
        path.write_bytes(data)
        daemon = self.serve(path)
        told = daemon.event("damage")
        self.assertEqual((told["damaged_keys"], told["ranges"]), ("150", "150"))
        stub = Stub(self, daemon)
        info = stub.info()
        self.assertEqual((info.damaged_entries, len(info.damaged_ranges), info.live_keys), (150, 100, 150))
        self.assertEqual(len(daemon.events("damaged range")), 100)
        request = reader_pb2.BatchReadRequest(keys=[b"key %d" % i for i in range(300)])
        for i, item in enumerate(stub.stub.BatchRead(request).items):
            if i % 2 == 0:
                self.assertEqual(item.error, entry_pb2.ItemError(code=Code.DATA_LOSS.value[0], reason=DAMAGED,
                                                                 message=item.error.message))
            else:
                self.assertEqual(item.entry.payload, noise(i, 2 * KIB))


if __name__ == "__main__":
    unittest.main()
