"""The tool's verbs that move values and that keep a store well; what it says of damaged stores."""

import base64
import hashlib
import json
import os
import pty
import shutil
import subprocess
import unittest
from pathlib import Path

from test_tool import DEADLINE_S, FIXTURES, RDRIVE, ToolTest, manifests, run

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
                value = bytes.fromhex(op["payload"]["hex"])
                self.ok("put", "--create", "--hex-key", self.store, op["key"], stdin=value)
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
            self.fails(1, verb, "--create", self.store, "none", self.target, says=(self.store, '"none"', "no value"))
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
            self.fails(2, verb, self.store, "k", "grpc://127.0.0.1:1", says="cannot reach grpc://127.0.0.1:1")
        self.assertEqual(self.ok("get", self.store, "k"), b"v")
        self.assertEqual(Path(text).read_bytes(), b"This is no store, but a text of some length.\n")


class Damaged(UpkeepTest):
    def test_info_lists_what_is_damaged(self):
        info = json.loads(self.ok("info", "--json", str(DAMAGED / "a_flip_crc_middle.bin")))
        self.assertEqual((info["damaged_entries"], info["damaged_ranges"], info["unidentified_ranges"]), (1, 1, 0))
        self.assertEqual(info["damaged"], [{"offset": 184, "size": 72, "key_hash": "d432ac1f4882e181",
                                            "unidentified": False, "what": "a damaged entry of a known key"}])
        lines = self.ok("info", str(DAMAGED / "a_flip_crc_middle.bin")).decode().splitlines()
        self.assertEqual(lines[-1].split(None, 4),
                         ["damaged", "184", "72", "d432ac1f4882e181", "a damaged entry of a known key"])

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
        self.assertIn(b" - unidentified: damaged bytes of unknown keys\n", self.ok("info", self.store))

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

    def test_the_first_write_behind_a_torn_tail_tells_where_it_went(self):
        torn = self.copy_of(DAMAGED / "a_trunc_365.bin")
        os.chmod(self.store, 0o644)
        for told in (True, False):
            done = run("put", self.store, "k", "value")
            self.assertEqual(done.returncode, 0)
            lines = done.stderr.decode().splitlines()
            self.assertEqual(len(lines), 1 if told else 0, lines)
            for part in ("81 bytes", "offset 284", ".torn-284") if told else ():
                self.assertIn(part, lines[0])
        self.assertEqual(self.bytes(self.store + ".torn-284"), torn[284:])

    def test_get_of_a_damaged_key_exits_2_whatever_way_the_key_is_given(self):
        key_hash = self.damaged_store()
        for args in [["big"], ["--hash", key_hash], ["--hex-key", b"big".hex()]]:
            self.fails(2, "get", self.store, *args, says=("key ", "damaged"))


class Verifying(UpkeepTest):
    def verified(self, store=None, status=2):
        """The document that verify prints, and the line on stderr that an exit status of 2 comes with."""
        done = run("verify", "--json", store or self.store)
        self.assertEqual(done.returncode, status, done.stderr)
        if status == 0:
            self.assertEqual(done.stderr, b"")
        else:
            self.assertRegex(done.stderr.decode(),
                             r"\Ardrive: [^\n]*: damaged: keys \d+, ranges \d+, [^\n]*repair[^\n]*\n\Z")
        return json.loads(done.stdout)

    def test_every_entry_of_every_fixture_holds(self):
        for store, want in manifests():
            with self.subTest(store=store):
                got = self.verified(store, 0)
                entries = want["entries_in_file_order"]
                values = [entry for entry in entries if entry["kind"] == "payload"]
                size = sum(entry["end"] - entry["start"] for entry in values)
                self.assertEqual((got["path"], got["result"]), (store, "ok"))
                self.assertEqual(got["entries"], len(entries))
                self.assertIn(got["bytes"] - size, range(len(entries) - len(values) + 1))  # a tombstone's byte (F-05)
                self.assertEqual((got["damaged_entries"], got["damaged_ranges"], got["damaged"]), (0, 0, []))

    def test_lines_and_json_hold_the_same(self):
        store = str(VALID / "05_deletes.srd")
        lines = dict(line.split(None, 1) for line in self.ok("verify", store).decode().splitlines())
        document = self.verified(store, 0)
        self.assertEqual(document.pop("damaged"), [])
        self.assertEqual(lines, {name: str(value) for name, value in document.items()})

    def test_a_large_value_that_opening_does_not_check_is_found_damaged(self):
        key_hash = self.damaged_store()
        before = self.bytes()
        self.assertEqual(json.loads(self.ok("info", "--json", self.store))["damaged_ranges"], 0)
        got = self.verified()
        self.assertEqual((got["result"], got["damaged_entries"], got["damaged_ranges"]), ("damaged", 1, 1))
        self.assertEqual([row["key_hash"] for row in got["damaged"]], [key_hash])
        self.assertIn(key_hash.encode(), run("verify", self.store).stdout)
        self.assertEqual(self.bytes(), before)
        self.assertEqual(self.files(), ["store.srd"])

    def test_a_superseded_value_is_checked_too(self):
        self.damaged_store()
        self.put("big", b"newer")
        got = self.verified()
        self.assertEqual((got["damaged_entries"], got["damaged_ranges"]), (0, 1))
        self.assertEqual(self.ok("get", self.store, "big"), b"newer")

    def test_each_damaged_fixture_is_told_from_one_that_holds(self):
        for fixture, case in damaged_cases(True):
            with self.subTest(fixture=fixture):
                info = json.loads(self.ok("info", "--json", fixture))
                got = self.verified(fixture, 2 if info["damaged_ranges"] else 0)
                for name in ["damaged", "damaged_entries", "damaged_ranges", "unidentified_ranges", "unread_bytes"]:
                    self.assertEqual(got[name], info[name])
                if "flip_crc" in fixture or "flip_payload" in fixture:
                    self.assertEqual([row["key_hash"] for row in got["damaged"]], case["damaged"])
                if "trunc" in fixture or "_zeros" in fixture or "_ff_" in fixture:
                    self.assertGreater(got["unread_bytes"] + got["damaged_ranges"], 0)

    def test_an_unfinished_tail_is_counted_and_is_no_damage(self):
        got = self.verified(str(DAMAGED / "a_trunc_372.bin"), 0)
        self.assertEqual((got["result"], got["unread_bytes"]), ("ok", 372 - 284))

    def test_a_hundred_ranges_are_listed_and_the_rest_is_counted(self):
        self.ok("import", self.store, stdin=b"".join(b"%d\t%s\n" % (i, b"v" * 40) for i in range(300)))
        data = bytearray(self.bytes())
        for row in self.ls()[::2]:
            data[-(-row["prev_offset"] // 64) * 64] ^= 1  # its payload's first byte (F-02)
        Path(self.store).write_bytes(data)
        got = self.verified()
        self.assertEqual((got["damaged_entries"], got["damaged_ranges"], len(got["damaged"])), (150, 150, 100))
        lines = run("verify", self.store).stdout.decode().splitlines()
        self.assertEqual(lines[-1].split(), ["not_listed", "50"])
        self.assertEqual(sum(line.startswith("damaged ") for line in lines), 100)

    def test_a_store_that_does_not_open_is_told_with_a_line(self):
        for fixture, _ in damaged_cases(False):
            self.fails(2, "verify", fixture, says=(fixture, "not a simd-r-drive store"))
        self.fails(2, "verify", self.store, says=(self.store, "No such file"))
        self.fails(64, "verify", self.store, "more", says=('"more"', "usage: rdrive verify"))


class Repairing(UpkeepTest):
    def repair(self, *options, store=None, status=2):
        """What repair prints: its figures, and what became of each key whose newest version is damaged."""
        done = run("repair", store or self.store, "--output", self.target, *options)
        self.assertEqual(done.returncode, status, done.stderr)
        says = r"\A\Z" if status == 0 else r"\Ardrive: [^\n]*not all is as it was[^\n]*\n\Z"
        self.assertRegex(done.stderr.decode(), says)
        rows = [line.split(None, 1) for line in done.stdout.decode().splitlines()]
        figures = {name: int(number) for name, number in rows[-4:]}
        self.assertEqual(list(figures), ["written", "older", "left_out", "unidentified_ranges"])
        return figures, dict(rows[:-4])

    def test_a_store_without_damage_is_written_whole_and_in_order(self):
        for store, want in manifests():
            with self.subTest(store=store):
                figures, keys = self.repair(store=store, status=0)
                self.assertEqual((figures["written"], keys), (want["live_keys"], {}))
                self.assertEqual(self.exported(self.target), self.exported(store))
                self.assertEqual([row["key_hash"] for row in self.ls(self.target)], want["iter_entries"])
                self.ok("verify", self.target)
                os.unlink(self.target)

    def test_what_holds_of_each_damaged_fixture_is_written_and_nothing_false(self):
        for fixture, case in damaged_cases(True):
            with self.subTest(fixture=fixture):
                before = self.copy_of(fixture)
                info = json.loads(self.ok("info", "--json", self.store))
                whole = info["damaged_entries"] == 0 and info["unidentified_ranges"] == 0
                figures, keys = self.repair(status=0 if whole else 2)
                values = {row["key_hash"]: row["value_base64"]
                          for row in map(json.loads, run("export", self.store).stdout.splitlines())}
                self.assertEqual({key: base64.b64encode(value).decode()
                                  for key, value in self.exported(self.target).items()}, values)
                self.assertEqual((figures["written"], figures["older"]), (len(values), 0))
                self.assertEqual((figures["left_out"], set(keys.values())),
                                 (info["damaged_entries"], {"left out"} if info["damaged_entries"] else set()))
                self.assertFalse(set(keys) & set(case["serve"]))
                self.ok("verify", self.target)
                self.assertEqual(self.bytes(), before)
                self.assertEqual(self.files(), ["store.srd", "target.srd"])
                os.unlink(self.target)

    def two_versions(self):
        """A store whose key `k` is damaged in its newer version; returns its hash."""
        self.put("other", b"holds")
        self.put("k", b"older")
        self.put("k", b"n" * 100_000)
        data = bytearray(self.bytes())
        data[50_000] ^= 1
        Path(self.store).write_bytes(data)
        return self.ok("hash", "k").decode().strip()

    def test_an_older_version_is_written_only_when_told_and_is_listed(self):
        key_hash = self.two_versions()
        figures, keys = self.repair()
        self.assertEqual((figures["written"], figures["older"], figures["left_out"]), (1, 0, 1))
        self.assertEqual(keys, {key_hash: "left out"})
        self.fails(1, "get", self.target, "k")
        os.unlink(self.target)
        figures, keys = self.repair("--older-versions")
        self.assertEqual((figures["written"], figures["older"], figures["left_out"]), (2, 1, 0))
        self.assertEqual(keys, {key_hash: "written as an older version"})
        self.assertEqual(self.ok("get", self.target, "k"), b"older")

    def test_a_key_without_an_older_version_is_left_out_even_then(self):
        key_hash = self.damaged_store()
        figures, keys = self.repair("--older-versions")
        self.assertEqual((figures["written"], figures["older"], keys), (2, 0, {key_hash: "left out"}))

    def test_the_new_store_can_be_written_and_has_the_mode_of_the_old(self):
        self.two_versions()
        os.chmod(self.store, 0o600)
        self.repair()
        self.assertEqual(os.stat(self.target).st_mode & 0o777, 0o600)
        self.assertEqual(sorted(os.listdir(self.folder)), ["store.srd", "store.srd.writer", "target.srd"])
        self.ok("put", self.target, "k", "anew")
        self.assertEqual(self.ok("get", self.target, "k"), b"anew")

    def test_nothing_that_exists_is_written_over(self):
        self.two_versions()
        self.fails(2, "repair", self.store, "--output", self.store, says=(self.store, "exists", "allowed"))
        taken = self.file("taken", b"mine")
        self.fails(2, "repair", self.store, "--output", taken, says=(taken, "exists"))
        os.symlink("nowhere", self.target)
        self.fails(2, "repair", self.store, "--output", self.target, says="exists")
        self.fails(2, "repair", self.store, "--output", str(self.folder), says="exists")
        half = self.file("new.srd.repair", b"of another repair")
        self.fails(2, "repair", self.store, "--output", str(self.folder / "new.srd"), says=(half, "remove it first"))
        writer = self.file("other.srd.repair.writer", b"of another store" * 50)
        self.fails(2, "repair", self.store, "--output", str(self.folder / "other.srd"), says="no writer's line")
        kept = [Path(path).read_bytes() for path in (taken, half, writer)]
        self.assertEqual(kept, [b"mine", b"of another repair", b"of another store" * 50])
        self.assertEqual(self.files(), ["new.srd.repair", "store.srd", "taken", "target.srd"])

    def test_a_repair_that_is_killed_leaves_nothing_that_passes_for_a_repaired_store(self):
        self.ok("import", self.store, stdin=b"".join(b"%d\tvalue\n" % i for i in range(8000)))
        data = bytearray(self.bytes())
        for row in self.ls()[:-1]:
            data[-(-row["prev_offset"] // 64) * 64] ^= 1
        Path(self.store).write_bytes(data)
        args = [RDRIVE, "repair", self.store, "--output", self.target]
        with subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as tool:
            tool.stdout.read(1)  # it has listed some keys, and has more of them than a pipe that nobody reads takes
            tool.kill()
            tool.communicate(timeout=DEADLINE_S)
        self.assertEqual(self.files(), ["store.srd", "target.srd.repair"])
        self.fails(2, *args[1:], says=("target.srd.repair exists", "remove it first"))
        os.unlink(self.target + ".repair")
        figures, keys = self.repair()
        self.assertEqual((figures["written"], figures["left_out"], len(keys)), (1, 7999, 7999))

    def test_usage_errors_say_what_is_missing_and_touch_no_file(self):
        self.fails(64, "repair", self.store, says=("--output NEW", "missing"))
        self.fails(64, "repair", self.store, "--output=", says=("--output", "allowed"))
        self.fails(64, "repair", self.store, self.target, says="one argument too many")
        self.fails(64, "verify", self.store, "--output", self.target, says="--output is not allowed here")
        self.assertEqual(os.listdir(self.folder), [])

    def test_a_store_that_does_not_open_leaves_no_new_one(self):
        for fixture, _ in damaged_cases(False):
            self.fails(2, "repair", fixture, "--output", self.target, says="not a simd-r-drive store")
        self.assertEqual(os.listdir(self.folder), [])


class Compacting(UpkeepTest):
    def compacted(self):
        lines = dict(line.split() for line in self.ok("compact", self.store).decode().splitlines())
        self.assertEqual(list(lines), ["entries", "bytes_before", "bytes_after", "bytes_reclaimed"])
        return {name: int(number) for name, number in lines.items()}

    def test_compact_keeps_what_is_live_and_says_what_it_reclaimed(self):
        before = self.copy_of(VALID / "15_before_compaction.srd")
        live = self.exported()
        got = self.compacted()
        self.assertEqual((got["entries"], got["bytes_before"]), (len(live), len(before)))
        self.assertEqual((got["bytes_after"], got["bytes_reclaimed"]),
                         (len(self.bytes()), len(before) - len(self.bytes())))
        self.assertGreater(got["bytes_reclaimed"], 0)
        self.assertEqual(self.exported(), live)
        self.assertEqual(self.compacted()["bytes_reclaimed"], 0)
        self.assertEqual(self.files(), ["store.srd"])

    def test_every_fixture_keeps_its_live_entries_in_their_order(self):
        for store, want in manifests():
            with self.subTest(store=store):
                self.copy_of(store)
                self.assertEqual(self.compacted()["entries"], want["live_keys"])
                self.assertEqual(self.exported(), self.exported(store))
                self.assertEqual([row["key_hash"] for row in self.ls()], want["iter_entries"])
                self.ok("verify", self.store)

    def test_a_damaged_store_is_refused_and_repair_is_named(self):
        for damage in [self.damaged_store, lambda: self.copy_of(DAMAGED / "a_flip_crc_middle.bin")]:
            damage()
            before = self.bytes()
            self.fails(2, "compact", self.store, says=(self.store, "repair", "nothing was changed"))
            self.assertEqual(self.bytes(), before)
            self.assertEqual(self.files(), ["store.srd"])

    def test_what_the_crate_left_is_reported_and_left_alone(self):
        self.put("k", b"v")
        left = self.file("store.srd.bk", b"deleted keys")
        done = run("compact", self.store)
        self.assertEqual(done.returncode, 0)
        self.assertRegex(done.stderr.decode(), rf"\Ardrive: {left}: left by [^\n]*\n\Z")
        self.assertEqual(Path(left).read_bytes(), b"deleted keys")

    def test_what_an_interrupted_compaction_left_is_no_hindrance(self):
        self.put("k", b"v")
        self.file("store.srd.compact", b"half a store")
        self.compacted()
        self.assertEqual(self.ok("get", self.store, "k"), b"v")
        self.assertEqual(self.files(), ["store.srd"])

    def test_who_reads_the_old_file_goes_on(self):
        self.ok("import", self.store, stdin=b"".join(b"key-%d\t%s\n" % (i % 2000, b"v" * 100) for i in range(4000)))
        live = self.exported()
        with subprocess.Popen([RDRIVE, "export", self.store], stdout=subprocess.PIPE) as reader:
            first = reader.stdout.readline()  # there is more than a pipe takes, so it waits for us
            self.assertGreater(self.compacted()["bytes_reclaimed"], 0)
            rows = [json.loads(line) for line in [first, *reader.stdout]]
        self.assertEqual(reader.returncode, 0)
        self.assertEqual({row["key_hash"]: base64.b64decode(row["value_base64"]) for row in rows}, live)
        self.assertEqual(self.exported(), live)

    def test_a_link_to_the_store_stays_a_link(self):
        self.put("k", b"old")
        self.put("k", b"new")
        link = self.folder / "link"
        link.symlink_to("store.srd")
        self.ok("compact", str(link))
        self.assertTrue(link.is_symlink())
        self.assertEqual(self.ok("get", self.store, "k"), b"new")
        self.assertEqual(json.loads(self.ok("info", "--json", self.store))["entries"], 1)


class OnATerminal(UpkeepTest):
    def seen(self, *args):
        """What a terminal on stderr is shown."""
        master, terminal = pty.openpty()
        with subprocess.Popen([RDRIVE, *args], stdout=subprocess.DEVNULL, stderr=terminal) as tool:
            os.close(terminal)
            text = b""
            try:
                while more := os.read(master, 4096):
                    text += more
            except OSError:
                pass  # the terminal's other end is closed: EIO
            self.assertEqual(tool.wait(timeout=DEADLINE_S), 0)
        os.close(master)
        return text

    def test_long_work_shows_a_bar_there_and_wipes_it(self):
        self.ok("import", self.store, stdin=b"".join(b"key-%d\tvalue\n" % i for i in range(20_000)))
        for verb in ["verify", "compact"]:
            text = self.seen(verb, self.store)
            self.assertRegex(text, rb"\A\r\x1b\[K" + verb.encode() + rb" ")
            self.assertTrue(text.endswith(b"\r\x1b[K"), text)

    def test_short_work_shows_none(self):
        self.put("k", b"v")
        for args in [["info", self.store], ["rename", self.store, "k", "l"],
                     ["copy", "--create", self.store, "l", self.target]]:
            self.assertEqual(self.seen(*args), b"")

    def test_a_full_device_is_an_error_of_every_verb(self):
        self.damaged_store()
        self.ok("delete", self.store, "big")
        with open("/dev/full", "wb") as full:
            for args in [["verify", str(VALID / "05_deletes.srd")], ["verify", "--json", str(VALID / "05_deletes.srd")],
                         ["repair", str(VALID / "05_deletes.srd"), "--output", self.target]]:
                self.fails(2, *args, stdout=full, says="No space left on device")


if __name__ == "__main__":
    unittest.main()
