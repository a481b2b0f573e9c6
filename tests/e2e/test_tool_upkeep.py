"""The tool's verbs that move values and that keep a store well; what it says of damaged stores."""

import base64
import hashlib
import json
import os
import shutil
import unittest
from pathlib import Path

from test_tool import FIXTURES, ToolTest, run

VALID, DAMAGED = FIXTURES / "valid", FIXTURES / "damaged"


def damaged_cases(opens):
    """The damaged fixtures that open, or that don't, and what is expected of them."""
    for case in json.loads((DAMAGED / "expect.json").read_text())["cases"]:
        if case["opens"] is opens:
            yield str(DAMAGED / case["file"]), case


class UpkeepTest(ToolTest):
    def setUp(self):
        super().setUp()
        self.target = str(self.folder / "target.srd")

    def files(self):
        """What lies in the folder, writers' lines apart."""
        return sorted(name for name in os.listdir(self.folder) if not name.endswith(".writer"))

    def bytes(self, path=None):
        return Path(path or self.store).read_bytes()

    def copy_of(self, fixture):
        shutil.copy(fixture, self.store)
        return self.bytes()


class Renaming(UpkeepTest):
    def test_rename_gives_the_value_to_the_new_key_and_deletes_the_old(self):
        self.put("old", b"value")
        self.put("new", b"replaced")
        self.assertEqual(self.ok("rename", self.store, "old", "new"), b"")
        self.assertEqual(self.ok("get", self.store, "new"), b"value")
        self.fails(1, "get", self.store, "old")

    def test_rename_writes_what_the_crate_wrote(self):
        ops = json.loads((VALID / "23_rename.srd.json").read_text())["ops"]
        for op in ops:
            if op["op"] == "write":
                self.ok("put", "--create", "--hex-key", self.store, op["key"], stdin=bytes.fromhex(op["payload"]["hex"]))
            elif "error" not in op:
                self.ok("rename", "--hex-key", self.store, op["old"], op["new"])
            else:
                self.fails(64 if op["old"] == op["new"] else 1, "rename", "--hex-key", self.store, op["old"], op["new"])
        self.assertEqual(self.bytes(), (VALID / "23_rename.srd").read_bytes())

    def test_old_and_new_are_given_as_the_key_options_say(self):
        self.put("k", b"v")
        hashes = self.ok("hash", "k", "l").decode().split()
        self.ok("rename", "--hash", self.store, *hashes)
        self.ok("rename", "--hex-key", self.store, b"l".hex(), b"m".hex())
        self.assertEqual(self.ok("get", self.store, "m"), b"v")
        self.ok("put", "--namespace", "n", self.store, "k", "in n")
        self.ok("rename", "--sync=none", "--namespace", "n", self.store, "k", "l")
        self.assertEqual(self.ok("get", "--namespace", "n", self.store, "l"), b"in n")

    def test_renaming_an_absent_key_exits_1_and_writes_nothing(self):
        self.put("k", b"v")
        before = self.bytes()
        self.fails(1, "rename", self.store, "none", "k", says=(self.store, 'key "none"', "no value"))
        self.assertEqual(self.bytes(), before)

    def test_renaming_a_key_to_itself_is_a_usage_error_that_touches_no_file(self):
        self.fails(64, "rename", self.store, "k", "k", says=('OLD "k"', "a921e3704fda881d", "allowed: two keys"))
        self.fails(64, "rename", "--hash", self.store, "k", "l", says="16 hex digits")
        self.fails(64, "rename", self.store, "k", says="STORE OLD NEW")
        self.assertEqual(os.listdir(self.folder), [])

    def test_renaming_a_damaged_key_exits_2_and_writes_nothing(self):
        self.damaged_store()
        before = self.bytes()
        self.fails(2, "rename", self.store, "big", "new", says=('key "big"', "damaged"))
        self.assertEqual(self.bytes(), before)


class Transferring(UpkeepTest):
    def test_copy_and_move_write_what_the_crate_wrote(self):
        for fixture in ["25_copy_source.srd", "26_copy_target.srd"]:
            for op in json.loads((VALID / (fixture + ".json")).read_text())["ops"]:
                if op["op"] == "write":
                    value = bytes.fromhex(op["payload"]["hex"]) if "hex" in op["payload"] else \
                        self.ok("get", "--hex-key", str(VALID / "26_copy_target.srd"), op["key"])
                    store = self.store if "source" in fixture else self.target
                    self.ok("put", "--create", "--hex-key", store, op["key"], stdin=value)
        self.assertEqual(self.ok("copy", "--hex-key", self.store, "6b31", self.target), b"")
        self.assertEqual(self.ok("move", "--hex-key", self.store, "6b32", self.target), b"")
        self.assertEqual(self.bytes(), (VALID / "25_copy_source.srd").read_bytes())
        self.assertEqual(self.bytes(self.target), (VALID / "26_copy_target.srd").read_bytes())

    def test_copying_changes_no_byte_of_the_source(self):
        before = self.copy_of(VALID / "10_payload_sizes.srd")
        for row in self.ls():
            self.ok("copy", "--create", "--sync=none", "--hash", self.store, row["key_hash"], self.target)
        self.assertEqual(self.exported(self.target), self.exported())
        self.assertEqual(self.bytes(), before)
        self.assertEqual(sorted(os.listdir(self.folder)), ["store.srd", "target.srd", "target.srd.writer"])

    def test_moving_leaves_the_key_in_the_target_alone(self):
        self.put("k", b"v" * 100_000)
        self.put("stays", b"here")
        self.ok("move", "--create", self.store, "k", self.target)
        self.fails(1, "get", self.store, "k")
        self.assertEqual(self.ok("get", self.store, "stays"), b"here")
        self.assertEqual(self.ok("get", self.target, "k"), b"v" * 100_000)
        self.assertEqual(len(self.ls(self.target)), 1)

    def test_a_missing_target_is_made_only_when_told(self):
        self.put("k", b"v")
        for verb in ["copy", "move"]:
            self.fails(2, verb, self.store, "k", self.target, says=(self.target, "No such file", "--create"))
        line = self.fails(2, "copy", "--create", str(self.folder / "none"), "k", self.target, says="No such file")
        self.assertNotIn("--create", line)
        self.assertEqual(self.files(), ["store.srd"])

    def test_no_target_is_made_for_a_key_that_has_no_value_that_holds(self):
        self.damaged_store()
        before = self.bytes()
        for verb in ["copy", "move"]:
            self.fails(1, verb, "--create", self.store, "none", self.target, says=(self.store, 'key "none"', "no value"))
            self.fails(2, verb, "--create", self.store, "big", self.target, says=(self.store, 'key "big"', "damaged"))
        self.assertEqual(self.files(), ["store.srd"])
        self.assertEqual(self.bytes(), before)

    def test_the_store_itself_is_no_target_by_whatever_name(self):
        self.put("k", b"v")
        before = self.bytes()
        os.symlink(self.store, self.folder / "link")
        os.link(self.store, self.folder / "other-name")
        for verb in ["copy", "move"]:
            for name in ["store.srd", "link", "other-name"]:
                self.fails(2, verb, self.store, "k", str(self.folder / name), says=("store itself", "allowed: another"))
        self.assertEqual(self.bytes(), before)

    def test_a_target_that_is_no_store_is_refused_and_the_key_stays(self):
        self.put("k", b"v")
        text = self.file("text", b"This is no store, but a text of some length.\n")
        for verb in ["copy", "move"]:
            self.fails(2, verb, self.store, "k", text, says=(text, "not a simd-r-drive store"))
            self.fails(2, verb, self.store, "k", str(self.folder), says="not a regular file")
            self.fails(64, verb, self.store, "k", "grpc://localhost:1", says="not yet served")
        self.assertEqual(self.ok("get", self.store, "k"), b"v")
        self.assertEqual(Path(text).read_bytes(), b"This is no store, but a text of some length.\n")


class Damaged(UpkeepTest):
    def test_info_lists_what_is_damaged(self):
        info = json.loads(self.ok("info", "--json", str(DAMAGED / "a_flip_crc_middle.bin")))
        self.assertEqual((info["damaged_entries"], info["damaged_ranges"], info["unidentified_ranges"]), (1, 1, 0))
        self.assertEqual(info["damaged"], [{"offset": 184, "size": 72, "key_hash": "d432ac1f4882e181",
                                            "unidentified": False, "what": "a damaged entry of a known key"}])
        lines = self.ok("info", str(DAMAGED / "a_flip_crc_middle.bin")).decode().splitlines()
        self.assertEqual(lines[-1].split(None, 1), ["damaged", "184 72 d432ac1f4882e181 a damaged entry of a known key"])

    def test_info_marks_a_range_whose_keys_nobody_knows(self):
        self.copy_of(VALID / "05_deletes.srd")
        entries = json.loads((VALID / "05_deletes.srd.json").read_text())["entries_in_file_order"]
        data = bytearray(self.bytes())
        begin, end = entries[2]["end"], entries[6]["end"] + 20
        data[begin:end] = bytes(end - begin)  # whole entries lost, trailers and all
        Path(self.store).write_bytes(data)
        info = json.loads(self.ok("info", "--json", self.store))
        self.assertEqual(info["unidentified_ranges"], 1)
        self.assertEqual([row["unidentified"] for row in info["damaged"]], [True])
        self.assertIn(b" - ! damaged bytes of unknown keys\n", self.ok("info", self.store))

    def test_every_verb_that_reads_leaves_each_damaged_fixture_as_it_is(self):
        for fixture, case in damaged_cases(True):
            with self.subTest(fixture=fixture):
                before = self.copy_of(fixture)
                self.ok("info", self.store)
                done = run("export", self.store)
                values = [json.loads(line) for line in done.stdout.splitlines()]
                self.assertGreaterEqual({row["key_hash"] for row in values}, set(case["serve"]))
                self.assertEqual(self.bytes(), before)
                self.assertEqual(self.files(), ["store.srd"])

    def test_what_holds_of_each_damaged_fixture_is_exported_and_nothing_false(self):
        for fixture, case in damaged_cases(True):
            with self.subTest(fixture=fixture):
                done = run("export", fixture)
                values = {row["key_hash"]: row["value_base64"] for row in map(json.loads, done.stdout.splitlines())}
                info = json.loads(self.ok("info", "--json", fixture))
                self.assertEqual(done.returncode, 2 if info["damaged_entries"] else 0)
                for key_hash, value in case["serve"].items():
                    self.assertEqual(self.sha256(values.pop(key_hash)), value["sha256"])
                for key_hash in case["damaged"] + case["gone"] + case["deleted"] + case.get("never", []):
                    self.assertNotIn(key_hash, values)

    @staticmethod
    def sha256(base64_text):
        return hashlib.sha256(base64.b64decode(base64_text, validate=True)).hexdigest()

    def test_what_is_no_store_is_refused_by_every_verb_that_reads(self):
        for fixture, _ in damaged_cases(False):
            for verb in ["info", "ls", "export", "last"]:
                self.fails(2, verb, fixture, says=(fixture, "not a simd-r-drive store", "nothing was changed"))

    def test_deleting_a_damaged_key_heals_it(self):
        self.damaged_store()
        self.ok("delete", self.store, "big")
        self.fails(1, "get", self.store, "big", says="no value")
        self.assertEqual(len(self.ls()), 2)

    def test_get_of_a_damaged_key_exits_2_whatever_way_the_key_is_given(self):
        key_hash = self.damaged_store()
        for args in [["big"], ["--hash", key_hash], ["--hex-key", b"big".hex()]]:
            self.fails(2, "get", self.store, *args, says=("key ", "damaged"))


if __name__ == "__main__":
    unittest.main()
