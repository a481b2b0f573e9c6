"""The tool `rdrive`, run as its users run it. RDRIVE_BIN is the folder of the build's programs."""

import base64
import hashlib
import json
import os
import pty
import resource
import select
import shutil
import signal
import subprocess
import tempfile
import unittest
from pathlib import Path

RDRIVE = str(Path(os.environ["RDRIVE_BIN"]) / "rdrive")
FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"
DEADLINE_S = 60  # nothing here takes a second; what takes this long hangs
VERBS = ["info", "get", "exists", "metadata", "last", "ls", "put", "delete", "rename", "copy", "move", "import",
         "export", "verify", "repair", "compact", "index", "hash", "bench"]


def run(*args, stdin=b"", **options):
    """Run the tool; stdout and stderr come back as bytes."""
    options.setdefault("stdout", subprocess.PIPE)
    options.setdefault("stderr", subprocess.PIPE)
    if "stdin_from" in options:
        return subprocess.run([RDRIVE, *args], stdin=options.pop("stdin_from"), timeout=DEADLINE_S, **options)
    return subprocess.run([RDRIVE, *args], input=stdin, timeout=DEADLINE_S, **options)


def manifests():
    for path in sorted((FIXTURES / "valid").glob("*.json")):
        yield str(path)[: -len(".json")], json.loads(path.read_text())


def live_keys(manifest):
    return {key["key_hash"]: key for key in manifest["keys"] if key["state"] == "live"}


class ToolTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="rdrive-tool-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.store = str(self.folder / "store.srd")

    def file(self, name, data):
        path = self.folder / name
        path.write_bytes(data)
        return str(path)

    def ok(self, *args, **options):
        done = run(*args, **options)
        self.assertEqual((done.returncode, done.stderr), (0, b""), args)
        return done.stdout

    def fails(self, status, *args, says=(), **options):
        """The tool ends with `status` and one line on stderr that holds each of `says`; returns that line."""
        done = run(*args, **options)
        line = done.stderr.decode()
        self.assertEqual(done.returncode, status, (args, line))
        self.assertRegex(line, r"\Ardrive: [^\n]+\n\Z", args)
        for part in [says] if isinstance(says, str) else says:
            self.assertIn(part, line, args)
        self.assertFalse(done.stdout, args)
        return line

    def put(self, key, value, *options):
        self.ok("put", self.store, key, "-", "--create", *options, stdin=value)

    def ls(self, store=None):
        return json.loads(self.ok("ls", "--json", store or self.store))

    def exported(self, store=None):
        lines = self.ok("export", store or self.store).decode().splitlines()
        entries = [json.loads(line) for line in lines]
        return {entry["key_hash"]: base64.b64decode(entry["value_base64"], validate=True) for entry in entries}

    def damaged_store(self):
        """Three keys; `big`, too large to be checked by opening, has one flipped byte."""
        self.put("old", b"fine")
        self.put("big", b"x" * 100_000)
        self.put("new", b"also fine")
        data = bytearray(Path(self.store).read_bytes())
        data[50_000] ^= 1
        Path(self.store).write_bytes(data)
        return self.ok("hash", "big").decode().strip()


class CommandLine(ToolTest):
    def test_help_lists_every_verb_and_goes_to_stdout(self):
        text = self.ok("--help").decode()
        for verb in VERBS:
            self.assertIn(f"\n  {verb} ", text)
        self.assertEqual(self.ok("-h").decode(), text)

    def test_every_verb_explains_itself(self):
        for verb in VERBS:
            self.assertTrue(self.ok(verb, "--help").decode().startswith(f"usage: rdrive {verb} "))

    def test_import_help_says_that_cr_is_kept(self):
        self.assertIn(rb"a \r", self.ok("import", "--help"))

    def test_export_help_says_newest_first(self):
        self.assertIn(b"newest first", self.ok("export", "--help"))

    def test_version_is_one_line(self):
        self.assertRegex(self.ok("--version").decode(), r"\Ardrive \d+\.\d+\.\d+\n\Z")

    def test_usage_errors_exit_64_and_say_what_is_allowed(self):
        cases = [
            ([], "usage:"),
            (["frobnicate", "s"], ('"frobnicate"', "allowed: info, get,")),
            (["get", "s"], ("1 argument came", "STORE KEY")),
            (["put", "s", "k", "v", "more"], ('"more"', "[VALUE|-]")),
            (["get", "s", "k", "--hsah"], ('"--hsah"', "allowed: --hash")),
            (["get", "s", "k", "--json"], ("--json", "allowed: --hash")),
            (["put", "s", "k", "--sync", "often"], ('"often"', "allowed: always, none")),
            (["put", "s", "k", "--sync"], ("--sync", "missing")),
            (["put", "s", "k", "--sync=none", "--sync=none"], "twice"),
            (["info", "s", "--json=1"], "takes no value"),
            (["import", "s", "--format", "csv"], ('"csv"', "allowed: tsv, jsonl")),
            (["get", "s", "--hash", "123"], ('"123"', "allowed: 16 hex digits")),
            (["get", "s", "--hash", "0123456789abcdeg"], "allowed: 16 hex digits"),
            (["get", "s", "--hex-key", "abc"], ('"abc"', "allowed: hex digits")),
            (["get", "s", "--hex-key", "zz"], '"zz"'),
            (["get", "s", "--hash", "--hex-key", "0123456789abcdef"], "--hash came with --hex-key"),
            (["get", "s", "--hash", "--namespace", "n", "0123456789abcdef"], "--hash came with --namespace"),
        ]
        for args, says in cases:
            with self.subTest(args=args):
                self.fails(64, *args, says=says)

    def test_verbs_that_need_a_file_refuse_stores_that_are_served_and_say_why(self):
        for store in ["grpc://localhost:1", "grpcs://localhost:1", "unix:/run/x"]:
            for verb, *args in [["ls"], ["export"], ["verify"], ["repair", "--output", "new"], ["index"]]:
                self.fails(64, verb, store, *args, says=(store, f"`{verb}` needs a file: ", "allowed: a path"))

    def test_options_stand_before_or_after_positionals(self):
        self.put("k", b"v")
        key_hash = self.ok("hash", "k").decode().strip()
        for args in [
            ["--hash", "get", self.store, key_hash],
            ["get", "--hash", self.store, key_hash],
            ["get", self.store, "--hash", key_hash],
            ["get", self.store, key_hash, "--hash"],
        ]:
            self.assertEqual(self.ok(*args), b"v")

    def test_two_dashes_end_the_options(self):
        self.ok("put", "--create", "--", self.store, "--hash", "--json")
        self.assertEqual(self.ok("get", self.store, "--", "--hash"), b"--json")
        self.fails(64, "get", self.store, "--hash", says="came; usage:")

    def test_messages_stay_one_harmless_line(self):
        line = self.fails(64, "get", "s", "--hash", "a\n\x1b[31m\u009b\u00fc")
        self.assertIn(r'"a\x0a\x1b[31m\xc2\x9b' + "\u00fc", line)
        line = self.fails(2, "info", str(self.folder / "no\nsuch\x1bstore"))
        self.assertNotIn("\x1b", line)


class Reading(ToolTest):
    def test_info_agrees_with_every_manifest(self):
        for store, want in manifests():
            info = json.loads(self.ok("info", store, "--json"))
            live_bytes = sum(key["payload_len"] for key in live_keys(want).values())
            with self.subTest(store=store):
                self.assertEqual(info["path"], store)
                self.assertEqual(info["live_keys"], want["live_keys"])
                self.assertEqual(info["entries"], want["physical_entries"])
                self.assertEqual((info["tail_offset"], info["file_size"]), (want["tail"], want["file_size"]))
                self.assertEqual((info["unread_bytes"], info["live_bytes"]), (0, live_bytes))
                self.assertGreaterEqual(info["index_bytes"], 0)

    def test_info_lines_and_json_hold_the_same(self):
        store = str(FIXTURES / "valid" / "05_deletes.srd")
        lines = dict(line.split(None, 1) for line in self.ok("info", store).decode().splitlines())
        document = json.loads(self.ok("info", "--json", store))
        self.assertEqual(document.pop("damaged"), [])
        self.assertEqual(lines, {k: str(v) for k, v in document.items()})

    def test_info_json_is_valid_for_any_path(self):
        shutil.copy(FIXTURES / "valid" / "02_single.srd", os.fsencode(self.folder) + b"/a\"b\\\xff\n")
        info = json.loads(self.ok("info", "--json", os.fsencode(self.folder) + b"/a\"b\\\xff\n"))
        self.assertEqual(info["path"], f'{self.folder}/a"b\\\ufffd\n')

    def test_ls_lists_each_fixture_newest_first(self):
        for store, want in manifests():
            keys = live_keys(want)
            rows = self.ls(store)
            with self.subTest(store=store):
                self.assertEqual([row["key_hash"] for row in rows], want["iter_entries"])
                for row in rows:
                    key = keys[row["key_hash"]]
                    got = (row["payload_size"], row["checksum"], row["prev_offset"], row["damaged"])
                    self.assertEqual(got, (key["payload_len"], key["crc"], key["prev_offset"], False))

    def test_ls_lines_hold_hash_size_checksum_and_offset(self):
        store = str(FIXTURES / "valid" / "04_overwrites.srd")
        lines = [line.split() for line in self.ok("ls", store).decode().splitlines()]
        want = [[row["key_hash"], str(row["payload_size"]), row["checksum"], str(row["prev_offset"])]
                for row in self.ls(store)]
        self.assertEqual(lines, want)

    def test_get_and_exists_and_metadata_agree_with_every_manifest(self):
        for store, want in manifests():
            for number, key in enumerate(want["keys"][:3] + want["keys"][-3:]):
                by_hash = number % 2 == 0 or key["key_hex"] is None
                args = ["--hash", store, key["key_hash"]] if by_hash else ["--hex-key", store, key["key_hex"]]
                with self.subTest(args=args):
                    self.check_key(key, args)

    def check_key(self, key, args):
        if key["state"] != "live":
            self.fails(1, "get", *args, says="no value")
            self.fails(1, "metadata", *args, says="no value")
            gone = run("exists", *args)
            self.assertEqual((gone.returncode, gone.stdout, gone.stderr), (1, b"false\n", b""))
            return
        payload = self.ok("get", *args)
        self.assertEqual(len(payload), key["payload_len"])
        if "payload_hex" in key:
            self.assertEqual(payload.hex(), key["payload_hex"])
        else:
            self.assertEqual(hashlib.sha256(payload).hexdigest(), key["payload_sha256"])
        self.assertEqual(self.ok("exists", *args), b"true\n")
        meta = json.loads(self.ok("metadata", "--json", *args))
        self.assertEqual((meta["key_hash"], meta["checksum"]), (key["key_hash"], key["crc"]))
        self.assertEqual((meta["prev_offset"], meta["tombstone"]), (key["prev_offset"], False))

    def test_metadata_lines_and_json_hold_the_same(self):
        self.put("k", b"v")
        lines = dict(line.split() for line in self.ok("metadata", self.store, "k").decode().splitlines())
        document = json.loads(self.ok("metadata", self.store, "k", "--json"))
        self.assertEqual(lines, {**{k: str(v) for k, v in document.items()}, "tombstone": "false"})

    def test_last_agrees_with_every_manifest(self):
        for store, want in manifests():
            last = want["last_entry"]
            with self.subTest(store=store):
                if last is None:
                    self.fails(1, "last", store, says="no entry")
                    continue
                got = json.loads(self.ok("last", "--json", store))
                self.assertEqual(got["key_hash"], last["key_hash"])
                self.assertEqual((got["checksum"], got["prev_offset"]), (last["crc"], last["prev_offset"]))
                self.assertEqual(got["tombstone"], last["is_tombstone"])
                self.assertEqual(got["payload_size"], 0 if last["is_tombstone"] else last["end"] - last["start"])
                lines = dict(line.split() for line in self.ok("last", store).decode().splitlines())
                self.assertEqual(lines["key_hash"], last["key_hash"])

    def test_export_holds_every_live_value_of_every_fixture(self):
        for store, want in manifests():
            with self.subTest(store=store):
                got = {h: hashlib.sha256(value).hexdigest() for h, value in self.exported(store).items()}
                self.assertEqual(got, {h: self.sha256_of(key) for h, key in live_keys(want).items()})

    @staticmethod
    def sha256_of(key):
        if "payload_sha256" in key:
            return key["payload_sha256"]
        return hashlib.sha256(bytes.fromhex(key["payload_hex"])).hexdigest()

    def test_reading_changes_no_byte_and_makes_no_file(self):
        shutil.copy(FIXTURES / "valid" / "05_deletes.srd", self.store)
        before = Path(self.store).read_bytes()
        for verb in ["info", "ls", "last", "export"]:
            self.ok(verb, self.store)
        self.ok("get", self.store, "a")
        self.assertEqual(Path(self.store).read_bytes(), before)
        self.assertEqual(os.listdir(self.folder), ["store.srd"])

    def test_a_missing_store_is_an_error_and_is_not_made(self):
        for args in [["info"], ["get", "k"], ["exists", "k"], ["metadata", "k"], ["last"], ["ls"], ["export"],
                     ["delete", "k"]]:
            self.fails(2, args[0], self.store, *args[1:], says=(self.store, "No such file"))
        self.assertEqual(os.listdir(self.folder), [])

    def test_what_is_no_store_is_refused(self):
        self.fails(2, "info", str(self.folder), says="not a regular file")
        text = self.file("text", b"This is no store, but a text of some length.\n")
        self.fails(2, "ls", text, says="not a simd-r-drive store")

    def test_an_unfinished_tail_is_counted_and_the_rest_is_served(self):
        store = str(FIXTURES / "damaged" / "a_trunc_372.bin")
        info = json.loads(self.ok("info", "--json", store))
        self.assertEqual((info["tail_offset"], info["unread_bytes"]), (284, 372 - 284))
        self.assertEqual(len(self.ls(store)), 4)

    def test_hash_prints_one_line_of_sixteen_digits_a_key(self):
        self.assertEqual(self.ok("hash", "k", ""), b"a921e3704fda881d\n2d06800538d394c2\n")

    def test_hash_agrees_with_every_manifest(self):
        for store, want in manifests():
            keys = [key for key in want["keys"] if key["key_hex"] is not None][:50]
            if keys:
                hashes = self.ok("hash", "--hex-key", "--", *[key["key_hex"] for key in keys]).decode().split()
                self.assertEqual(hashes, [key["key_hash"] for key in keys], store)

    def test_a_namespace_gives_the_key_that_namespaced_writers_store(self):
        store = str(FIXTURES / "valid" / "14_namespaced.srd")
        self.assertEqual(self.ok("get", "--namespace", "users", store, "1"), b"users/1")
        self.assertEqual(self.ok("get", "--namespace", "orders", store, "name"), b"orders/name")
        self.assertEqual(self.ok("get", "--namespace=", store, "1"), b"/1")
        self.assertEqual(self.ok("hash", "--namespace", "users", "1"), b"f6f5626185afe856\n")
        self.assertEqual(self.ok("hash", "--namespace", "users", "--hex-key", "31"), b"f6f5626185afe856\n")


class Damage(ToolTest):
    def test_a_damaged_value_is_never_written_out(self):
        self.damaged_store()
        self.fails(2, "get", self.store, "big", says=('key "big"', "damaged"))
        self.assertEqual(self.ok("get", self.store, "new"), b"also fine")

    def test_ls_shows_damage_goes_on_and_exits_2(self):
        key_hash = self.damaged_store()
        done = run("ls", self.store)
        self.assertEqual(done.returncode, 2)
        self.assertIn(b"1 damaged entry", done.stderr)
        rows = [line.split() for line in done.stdout.decode().splitlines()]
        self.assertEqual([row[0] for row in rows if row[-1] == "damaged"], [key_hash])
        self.assertEqual(len(rows), 3)

    def test_ls_json_with_damage_is_still_one_document(self):
        key_hash = self.damaged_store()
        done = run("ls", "--json", self.store)
        self.assertEqual(done.returncode, 2)
        rows = {row["key_hash"]: row for row in json.loads(done.stdout)}
        self.assertEqual((rows[key_hash]["damaged"], rows[key_hash]["payload_size"]), (True, None))
        self.assertEqual([row["damaged"] for row in rows.values()].count(False), 2)

    def test_export_reports_damage_leaves_it_out_and_exits_2(self):
        key_hash = self.damaged_store()
        done = run("export", self.store)
        self.assertEqual(done.returncode, 2)
        self.assertIn(key_hash.encode(), done.stderr)
        self.assertIn(b"1 damaged entry was left out", done.stderr)
        values = [base64.b64decode(json.loads(line)["value_base64"]) for line in done.stdout.splitlines()]
        self.assertEqual(values, [b"also fine", b"fine"])

    def test_putting_a_damaged_key_heals_it(self):
        self.damaged_store()
        self.put("big", b"small now")
        self.assertEqual(self.ok("get", self.store, "big"), b"small now")
        self.assertEqual(len(self.ls()), 3)


class Writing(ToolTest):
    def test_put_makes_a_store_only_when_told(self):
        self.fails(2, "put", self.store, "k", "v", says=("No such file", "--create"))
        self.assertEqual(os.listdir(self.folder), [])
        self.ok("put", "--create", self.store, "k", "v")
        self.assertEqual(self.ok("get", self.store, "k"), b"v")

    def test_put_takes_its_value_from_stdin_too(self):
        value = bytes(range(256)) * 1000
        self.ok("put", "--create", self.store, "absent", stdin=value)
        self.ok("put", self.store, "dash", "-", stdin=value[::-1])
        self.assertEqual(self.ok("get", self.store, "absent"), value)
        self.assertEqual(self.ok("get", self.store, "dash"), value[::-1])

    def test_put_refuses_what_the_format_cannot_hold(self):
        for value in [b"", b"\0"]:
            self.fails(2, "put", "--create", self.store, "k", stdin=value, says=('key "k"', "0x00"))
        self.fails(2, "put", "--create", self.store, "k", "", says="empty")
        self.assertFalse(Path(self.store).exists())
        self.put("k", b"\0\0")
        self.assertEqual(self.ok("get", self.store, "k"), b"\0\0")

    def test_a_bad_command_line_touches_no_file(self):
        self.fails(64, "put", "--create", self.store, "xyz", "v", "--hash")
        self.fails(64, "import", self.store, "--format=csv")
        self.assertEqual(os.listdir(self.folder), [])

    def test_each_sync_mode_writes_the_same_bytes(self):
        other = str(self.folder / "other.srd")
        self.ok("put", "--create", "--sync", "none", self.store, "k", "v")
        self.ok("put", "--create", "--sync", "always", other, "k", "v")
        self.assertEqual(Path(self.store).read_bytes(), Path(other).read_bytes())

    def test_put_writes_what_the_crate_wrote(self):
        for fixture in ["02_single.srd", "20_single_01.srd"]:
            want = json.loads((FIXTURES / "valid" / (fixture + ".json")).read_text())["keys"][0]
            store = str(self.folder / fixture)
            self.ok("put", "--create", "--hex-key", store, want["key_hex"], stdin=bytes.fromhex(want["payload_hex"]))
            self.assertEqual(Path(store).read_bytes(), (FIXTURES / "valid" / fixture).read_bytes())

    def test_binary_keys_come_as_bytes_as_hex_and_as_hash(self):
        key = b"\xff\xfe\x01\n\xc3\x28"
        self.ok("put", "--create", self.store, key, "1")
        key_hash = self.ok("hash", key).decode().strip()
        self.assertEqual(self.ok("get", self.store, key), b"1")
        self.assertEqual(self.ok("get", "--hex-key", self.store, key.hex().upper()), b"1")
        self.assertEqual(self.ok("get", "--hash", self.store, key_hash.upper()), b"1")
        self.ok("put", "--hash", self.store, key_hash, "2")
        self.ok("put", "--hex-key", self.store, "00", "nul")
        self.ok("put", "--hex-key", self.store, "", "the empty key")
        self.assertEqual(self.ok("get", self.store, key), b"2")
        self.assertEqual(self.ok("get", self.store, ""), b"the empty key")
        self.ok("delete", "--hex-key", self.store, "00", "")
        self.assertEqual(len(self.ls()), 1)

    def test_hash_and_bytes_of_a_namespaced_key_are_one_key(self):
        self.ok("put", "--create", "--namespace", "n", self.store, "k", "in n")
        self.fails(1, "get", self.store, "k")
        key_hash = self.ok("hash", "--namespace", "n", "k").decode().strip()
        self.assertEqual(self.ok("get", "--hash", self.store, key_hash), b"in n")
        self.ok("delete", "--namespace=n", self.store, "k")
        self.assertEqual(self.ls(), [])

    def test_delete_of_some_present_keys_is_done(self):
        for key in ["a", "b", "c"]:
            self.put(key, b"v")
        self.ok("delete", self.store, "a", "nothing", "c")
        self.assertEqual(self.ok("exists", self.store, "b"), b"true\n")
        self.fails(1, "get", self.store, "a")
        self.fails(1, "get", self.store, "c")
        self.assertEqual(json.loads(self.ok("last", "--json", self.store))["tombstone"], True)

    def test_delete_of_absent_keys_writes_nothing_and_exits_1(self):
        self.put("a", b"v")
        before = Path(self.store).read_bytes()
        self.fails(1, "delete", self.store, "x", says="not present")
        self.fails(1, "delete", self.store, "x", "y", says="none of the keys")
        self.assertEqual(Path(self.store).read_bytes(), before)

    def test_a_second_writer_is_refused_and_a_reader_is_not(self):
        self.put("k", b"v")
        lines = b"".join(b"key-%d\t%s\n" % (i, b"v" * 1000) for i in range(2000))
        with subprocess.Popen([RDRIVE, "import", self.store], stdin=subprocess.PIPE, stderr=subprocess.PIPE) as writer:
            writer.stdin.write(lines)  # more than a pipe holds: when it is gone, the store has been opened
            self.fails(2, "put", self.store, "k", "w", says="another")
            self.fails(2, "delete", self.store, "k", says="another")
            self.assertEqual(self.ok("get", self.store, "k"), b"v")
            self.assertEqual(writer.communicate(timeout=DEADLINE_S)[1], b"")
        self.assertEqual(writer.returncode, 0)
        self.assertEqual(len(self.ls()), 2001)

    def test_no_room_is_an_error_and_the_store_goes_on(self):
        self.put("k", b"v")
        line = self.fails(2, "put", self.store, "big", stdin=b"x" * 100_000, says=(self.store, "no room"),
                          preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)))
        self.assertIn('key "big"', line)
        self.assertEqual(json.loads(self.ok("info", "--json", self.store))["unread_bytes"], 0)
        self.put("k2", b"v")
        self.assertEqual(len(self.ls()), 2)


class Importing(ToolTest):
    def test_tsv_splits_at_the_first_tab_and_keeps_all_else(self):
        self.ok("import", self.store, stdin=b"a\tb\tc\r\n\tempty key\n\xff\t\xfe\nlast\tline without an end")
        self.assertEqual(self.ok("get", self.store, "a"), b"b\tc\r")
        self.assertEqual(self.ok("get", self.store, ""), b"empty key")
        self.assertEqual(self.ok("get", self.store, b"\xff"), b"\xfe")
        self.assertEqual(self.ok("get", self.store, "last"), b"line without an end")

    def test_jsonl_takes_each_kind_of_key_and_value(self):
        lines = [
            {"key": "text \u00fc", "value": "caf\u00e9"},
            {"key_hex": "00FF", "value": "by hex"},
            {"key_hash": "0000000000000001", "value_base64": base64.b64encode(b"\0\xff\0").decode()},
            {"key": "nul\0inside", "value": "a\0b"},
            {"value": "order is free", "key": ""},
        ]
        self.ok("import", self.store, "--format", "jsonl", stdin="\n".join(map(json.dumps, lines)).encode() + b"\r\n")
        self.assertEqual(self.ok("get", self.store, "text \u00fc"), "caf\u00e9".encode())
        self.assertEqual(self.ok("get", "--hex-key", self.store, "00ff"), b"by hex")
        self.assertEqual(self.ok("get", "--hash", self.store, "0000000000000001"), b"\0\xff\0")
        self.assertEqual(self.ok("get", "--hex-key", self.store, b"nul\0inside".hex()), b"a\0b")
        self.assertEqual(self.ok("get", self.store, ""), b"order is free")

    def test_the_format_follows_the_file_name_unless_given(self):
        line = b'{"key":"k","value":"v"}\n'
        self.ok("import", self.store, self.file("in.jsonl", line))
        self.assertEqual(self.ok("get", self.store, "k"), b"v")
        self.fails(2, "import", self.store, self.file("in.json", line), says="no tab")
        self.fails(2, "import", self.store, "--format=tsv", self.file("in2.jsonl", line), says="no tab")
        self.ok("import", self.store, "--format=jsonl", self.file("in.txt", line))

    def test_each_bad_json_line_is_named_with_what_is_allowed(self):
        cases = [
            (b"nonsense", "not JSON"), (b"", "not JSON"), (b"[]", "an array came"),
            (b'{"key":"k","value":"v"} x', "not JSON"), (b'{"key":"\xff","value":"v"}', "not JSON"),
            (b'{"key":5,"value":"v"}', '"key" is a number; allowed: a string'),
            (b'{"key":"k","value":1.5}', '"value" is a number'), (b'{"key":"k","value":null}', '"value" is null'),
            (b'{"key":"k","value":true}', '"value" is a boolean'), (b'{"key":"k","value":{}}', '"value" is an object'),
            (b'{"key":"k"}', "no value came"), (b'{"value":"v"}', "no key came"), (b"{}", "no key came"),
            (b'{"key":"k","key_hex":"00","value":"v"}', 'both "key'),
            (b'{"key":"k","key":"l","value":"v"}', "duplicate"),
            (b'{"key":"k","value":"v","value_base64":"dg=="}', 'both "value'),
            (b'{"key":"k","value_hex":"00"}', 'unknown field "value_hex"'),
            (b'{"key":"k","value":"v","ttl":"1"}', 'unknown field "ttl"'),
            (b'{"key_hex":"0","value":"v"}', "two for each byte"), (b'{"key_hash":"12","value":"v"}', "16 hex digits"),
            (b'{"key_hash":"0x00000000000012","value":"v"}', "16 hex digits"),
            (b'{"key":"k","value":""}', "empty"), (b'{"key":"k","value":"\\u0000"}', "0x00"),
            (b'{"key":"k","value_base64":"AA=="}', "0x00"), (b'{"key":"k","value_base64":""}', "empty"),
        ]
        for text in [b"dg", b"dg=", b"dg===", b"=dg=", b"dh==", b"d g=", b"dmFs\\ndmFs", b"dmFs ICAg", b"dmFs    ",
                     b"d mF s  ", b"_-8=", b"dmFs====", b"===="]:
            cases.append((b'{"key":"k","value_base64":"%s"}' % text, "base64 of RFC 4648"))
        as_exported = b'{"key_hash":"0000000000000001","value_base64":"%s"}'
        for text in [b"dg", b"d g=", b"dh==", b"dm\\nFs"]:
            cases.append((as_exported % text, "base64 of RFC 4648"))
        cases += [(as_exported % b"AA==", "0x00"), (as_exported % b"", "empty"),
                  (as_exported % b'dg==","value":"v', "both"), (as_exported[:-4] + b"}", "not JSON")]
        for line, says in cases:
            with self.subTest(line=line):
                path = self.file("bad.jsonl", b'{"key":"good","value":"v"}\n' + line + b"\n")
                kept = "entries before it, written and synced: 1\n"
                self.fails(2, "import", self.store, path, says=(path, "line 2", kept, says))
                self.assertEqual(len(self.ls()), 1)

    def test_each_bad_tsv_line_is_named_and_what_came_before_stays(self):
        for line, says in [(b"no tab", '"no tab" has no tab; allowed: key<TAB>value'), (b"", "no tab"),
                           (b"k\t", "empty"), (b"k\t\0", "0x00")]:
            with self.subTest(line=line):
                good = b"".join(b"%d\tv\n" % i for i in range(2500))
                path = self.file("bad.tsv", good + line + b"\nafter\tv\n")
                self.fails(2, "import", self.store, path, says=(path, "line 2501", "written and synced: 2500\n", says))
                self.assertEqual(len(self.ls()), 2500)
                self.fails(1, "get", self.store, "after")

    def test_a_bad_first_line_leaves_an_empty_store(self):
        self.fails(2, "import", self.store, stdin=b"bad\n", says=("standard input: line 1", "written and synced: 0\n"))
        self.assertEqual(Path(self.store).read_bytes(), b"")

    def test_an_empty_input_makes_an_empty_store(self):
        self.ok("import", self.store, "-")
        self.assertEqual(json.loads(self.ok("info", "--json", self.store))["live_keys"], 0)

    def test_input_that_cannot_be_read_makes_no_store(self):
        self.fails(2, "import", self.store, str(self.folder / "none.tsv"), says=("none.tsv", "No such file"))
        self.fails(2, "import", self.store, str(self.folder), says="directory")
        self.assertEqual(os.listdir(self.folder), [])

    def test_the_store_itself_is_no_input_and_no_output(self):
        self.put("k", b"v")
        before = Path(self.store).read_bytes()
        self.fails(2, "import", self.store, self.store, says="the store itself")
        self.fails(2, "export", self.store, self.store, says="the store itself")
        with open(self.store, "ab") as itself:
            self.fails(2, "export", self.store, says="the store itself", stdout=itself)
        self.assertEqual(Path(self.store).read_bytes(), before)

    def test_later_lines_win_and_large_values_cross_batches(self):
        sizes = [1, 63, 64, 65, 70_000, 3_000_000, 2_000_000, 5_000_000, 1]
        lines = b"".join(b"k%d\t%s\n" % (i, bytes([65 + i]) * size) for i, size in enumerate(sizes))
        self.ok("import", self.store, stdin=lines + b"k5\tanew\n")
        rows = self.exported()
        for i, size in enumerate(sizes):
            want = b"anew" if i == 5 else bytes([65 + i]) * size
            self.assertEqual(rows[self.ok("hash", f"k{i}").decode().strip()], want)

    def test_no_room_says_how_much_was_written(self):
        lines = b"".join(b"%d\t%s\n" % (i, b"v" * 40) for i in range(5000))
        done = run("import", self.store, stdin=lines,
                   preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000)))
        self.assertEqual(done.returncode, 2)
        self.assertIn(b"no room", done.stderr)
        self.assertIn(b"nothing was written from standard input line 3001 on;", done.stderr)
        self.assertIn(b"entries before it, written and synced: 3000\n", done.stderr)
        self.assertEqual(len(self.ls()), 3000)

    def test_an_export_imports_to_the_same_live_set(self):
        for fixture, manifest in manifests():
            with self.subTest(fixture=fixture):
                copy = str(self.folder / Path(fixture).name)
                path = str(self.folder / "out.jsonl")
                self.ok("export", fixture, path)
                self.ok("import", copy, path)
                self.assertEqual(self.exported(copy), self.exported(fixture))
                self.assertEqual(json.loads(self.ok("info", "--json", copy))["live_keys"], manifest["live_keys"])

    def test_a_pipe_from_export_to_import_copies_a_store(self):
        source = str(FIXTURES / "valid" / "10_payload_sizes.srd")
        with subprocess.Popen([RDRIVE, "export", source], stdout=subprocess.PIPE) as export:
            self.ok("import", self.store, "--format=jsonl", stdin_from=export.stdout)
        self.assertEqual(export.returncode, 0)
        self.assertEqual(self.exported(), self.exported(source))

    def test_export_overwrites_its_file_whole(self):
        self.put("k", b"v")
        path = self.file("out.jsonl", b"x" * 10_000)
        self.ok("export", self.store, path)
        self.assertEqual(Path(path).read_bytes(), self.ok("export", self.store, "-"))

    def test_progress_shows_on_a_terminal_and_is_wiped(self):
        master, terminal = pty.openpty()
        with subprocess.Popen([RDRIVE, "import", self.store], stdin=subprocess.PIPE, stderr=terminal) as importer:
            os.close(terminal)
            seen = b""
            for _ in range(5000):  # feed it until the bar comes
                importer.stdin.write(b"key\tvalue\n" * 1000)
                importer.stdin.flush()
                if select.select([master], [], [], 0.005)[0]:
                    seen = os.read(master, 4096)
                    break
            importer.stdin.close()
            try:
                while more := os.read(master, 4096):
                    seen += more
            except OSError:
                pass  # the terminal's other end is closed: EIO
            self.assertEqual(importer.wait(timeout=DEADLINE_S), 0)
        os.close(master)
        self.assertRegex(seen, rb"import \d+ entries")
        self.assertTrue(seen.endswith(b"\r\x1b[K"))


class Pipes(ToolTest):
    def fill(self):
        self.ok("import", self.store, stdin=b"".join(b"key-%d\t%s\n" % (i, b"v" * 50) for i in range(20_000)))

    def test_a_full_device_is_an_error_of_every_verb(self):
        self.fill()
        for args in [["--help"], ["--version"], ["get", "--help"], ["hash", "k"], ["info", self.store],
                     ["ls", self.store], ["ls", "--json", self.store], ["get", self.store, "key-1"],
                     ["exists", self.store, "key-1"],
                     ["metadata", self.store, "key-1"], ["last", self.store], ["export", self.store],
                     ["export", self.store, "/dev/full"], ["exists", self.store, "absent"]]:
            with self.subTest(args=args), open("/dev/full", "wb") as full:
                self.fails(2, *args, stdout=full, says="No space left on device")

    def test_a_reader_that_leaves_ends_the_tool_quietly(self):
        self.fill()
        for verb in [["ls"], ["ls", "--json"], ["export"]]:
            with subprocess.Popen([RDRIVE, *verb, self.store], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as tool:
                tool.stdout.read(1)
                tool.stdout.close()
                self.assertEqual(tool.stderr.read(), b"")
                self.assertEqual(tool.wait(timeout=DEADLINE_S), -signal.SIGPIPE)

    def test_a_reader_that_leaves_is_an_error_where_sigpipe_is_ignored(self):
        self.fill()
        with subprocess.Popen([RDRIVE, "ls", self.store], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              restore_signals=False) as tool:
            tool.stdout.read(1)
            tool.stdout.close()
            self.assertIn(b"Broken pipe", tool.stderr.read())
            self.assertEqual(tool.wait(timeout=DEADLINE_S), 2)

    def test_closed_standard_streams_never_become_the_store(self):
        self.put("k", b"v")
        before = Path(self.store).read_bytes()

        def close_all():
            for fd in (0, 1, 2):
                os.close(fd)

        for args in [["ls", self.store], ["get", self.store, "k"], ["put", self.store, "k"], ["hash", "k"]]:
            done = run(*args, stdin_from=None, preexec_fn=close_all)
            self.assertEqual((done.returncode, done.stdout, done.stderr), (2, b"", b""), args)
        self.assertEqual(Path(self.store).read_bytes(), before)
        done = run("put", self.store, "k", "w", stdin_from=None, preexec_fn=close_all)
        self.assertEqual(done.returncode, 0)
        self.assertEqual(self.ok("get", self.store, "k"), b"w")

    def test_no_message_lands_in_the_store_where_stderr_is_closed(self):
        path = self.file("bad.tsv", b"good\tv\nbad\n")

        def close_two():  # with these free, input and store would be opened as descriptors 0 and 2
            os.close(0)
            os.close(2)

        done = run("import", self.store, path, stdin_from=None, preexec_fn=close_two)
        self.assertEqual(done.returncode, 2)
        self.assertEqual(self.ok("get", self.store, "good"), b"v")
        self.assertEqual(Path(self.store).stat().st_size, 21)

    def test_a_large_value_passes_whole(self):
        value = os.urandom(1 << 20) * 8
        self.put("k", value)
        self.assertEqual(self.ok("get", self.store, "k"), value)


if __name__ == "__main__":
    unittest.main()
