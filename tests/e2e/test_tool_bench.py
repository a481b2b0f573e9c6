"""`rdrive bench`: what it asks for, what it counts and what it tells. How fast anything is, is not asserted."""

import json
import os
import pty
import re
import resource
import select
import signal
import subprocess
import unittest
from pathlib import Path

from test_tool import DEADLINE_S, RDRIVE, ToolTest, live_keys, manifests, run


class BenchTest(ToolTest):
    def filled(self, count=20):
        """A store of `count` keys whose values have 2, 4, 6 … bytes."""
        lines = "".join(f"key-{i}\t{'ab' * (i + 1)}\n" for i in range(count))
        self.ok("import", self.store, stdin=lines.encode())

    def bench(self, *options, status=0):
        """The JSON document of a run, whose parts must agree with each other."""
        done = run("bench", self.store, "--json", *options)
        self.assertEqual(done.returncode, status, (options, done.stderr))
        if status == 0:
            self.assertEqual(done.stderr, b"")
        told = json.loads(done.stdout)
        self.assertEqual(told["calls"], sum(bucket["calls"] for bucket in told["histogram"]))
        self.assertEqual(told["keys"], told["calls"] * told["config"]["batch"])
        if not told["config"]["warmup_seconds"]:
            self.assertEqual(told["keys"], told["hits"] + told["absent"] + told["failed"])
        times = told["latency_ns"]
        self.assertEqual(sorted(times[name] for name in ["min", "p50", "p90", "p99", "p99_9", "p99_99", "max"]),
                         [times[name] for name in ["min", "p50", "p90", "p99", "p99_9", "p99_99", "max"]])
        self.assertTrue(times["min"] <= times["mean"] <= times["max"])
        ends = [end for bucket in told["histogram"] for end in (bucket["from_ns"], bucket["to_ns"])]
        self.assertEqual(ends, sorted(ends))
        self.assertTrue(ends[0] <= times["min"] and times["max"] <= ends[-1])
        self.assertEqual(told["path"], self.store)
        self.assertFalse(told["interrupted"])
        return told


class Counting(BenchTest):
    def test_a_run_of_so_many_operations_makes_just_that_many_whatever_the_threads(self):
        self.filled()
        for operations, threads, batch in [(1, 1, 1), (1, 4, 1), (10, 3, 1), (7, 2, 100), (1000, 8, 3)]:
            told = self.bench("--operations", str(operations), "--threads", str(threads), "--batch", str(batch))
            self.assertEqual((told["calls"], told["absent"], told["failed"]), (operations, 0, 0))
            self.assertIsNone(told["config"]["duration_seconds"])

    def test_a_run_of_so_many_seconds_ends(self):
        self.filled()
        told = self.bench("--duration", "0.01", "--threads", "2")
        self.assertGreaterEqual(told["calls"], 2)
        self.assertGreaterEqual(told["seconds"], 0.01)
        self.assertIsNone(told["config"]["operations"])

    def test_of_two_limits_the_first_one_reached_ends_the_run(self):
        self.filled()
        self.assertEqual(self.bench("--duration", "3600", "--operations", "5")["calls"], 5)
        self.assertLess(self.bench("--duration", "0.01", "--operations", "1000000000000")["calls"], 10 ** 12)

    def test_equal_seeds_ask_for_equal_keys_and_other_seeds_for_others(self):
        self.filled(200)
        for options in [[], ["--distribution", "zipf"], ["--threads", "3"], ["--batch", "7", "--misses", "30"]]:
            sums = [self.bench("--operations", "300", "--seed", seed, *options)["payload_bytes"]
                    for seed in ["1", "1", "2", "3"]]
            self.assertEqual(sums[0], sums[1])
            self.assertEqual(len(set(sums)), 3, sums)

    def test_a_warm_up_changes_nothing_of_what_is_counted(self):
        self.filled(200)
        told = self.bench("--operations", "50", "--warmup", "0.01")
        self.assertEqual(told["hits"], 50)
        self.assertEqual(told["payload_bytes"], self.bench("--operations", "50")["payload_bytes"])

    def test_misses_are_so_many_of_the_keys(self):
        self.filled()
        for misses, least, most in [("0", 0, 0), ("50", 400, 600), ("0.5", 1, 20), ("100", 1000, 1000)]:
            told = self.bench("--operations", "100", "--batch", "10", "--misses", misses)
            self.assertTrue(least <= told["absent"] <= most, (misses, told["absent"]))
            self.assertEqual(told["failed"], 0)
        self.assertEqual(told["payload_bytes"], 0)

    def test_a_steep_zipf_asks_nearly_always_for_one_key(self):
        self.filled(200)
        sizes = set()
        for seed in range(5):
            told = self.bench("--operations", "100", "--distribution", "zipf", "--zipf-exponent", "10", "--seed",
                              str(seed))
            self.assertEqual(told["config"]["zipf_exponent"], 10)
            sizes.add(round(told["payload_bytes"] / 100))
        self.assertGreater(len(sizes), 1)  # which one, the seed decides: it is not always the newest

    def test_of_many_keys_only_so_many_are_asked_for(self):
        self.filled(100)
        told = self.bench("--operations", "1000", "--keys", "1")
        self.assertEqual((told["live_keys"], told["gathered_keys"]), (100, 1))
        self.assertEqual(told["payload_bytes"] % 1000, 0)  # one key a thousand times
        chosen = {self.bench("--operations", "1", "--keys", "1", "--seed", str(seed))["payload_bytes"]
                  for seed in range(8)}
        self.assertGreater(len(chosen), 3)  # any of the file's keys, not the newest one

    def test_every_fixture_answers_right_for_each_of_its_live_keys(self):
        for self.store, manifest in manifests():
            live = live_keys(manifest)
            for options in [[], ["--batch", "50", "--verify", "always", "--distribution", "zipf"], ["--verify=off"]]:
                if live:
                    told = self.bench("--operations", "50", "--threads", "2", *options)
                    self.assertEqual((told["gathered_keys"], told["failed"], told["absent"]), (len(live), 0, 0))
                else:
                    self.fails(2, "bench", self.store, "--operations", "50", *options,
                               says=(self.store, "no key to read", "the store has none"))

    def test_nothing_is_written(self):
        self.filled()
        Path(self.store + ".writer").unlink()
        before = Path(self.store).read_bytes()
        os.chmod(self.store, 0o400)
        self.bench("--operations", "10", "--threads", "2")
        self.assertEqual(Path(self.store).read_bytes(), before)
        self.assertEqual(os.listdir(self.folder), ["store.srd"])


class Telling(BenchTest):
    def test_the_table_has_rates_and_latencies_and_the_histogram_where_it_was_asked_for(self):
        self.filled()
        options = ["bench", self.store, "--operations", "1000", "--batch", "5", "--distribution=zipf"]
        text = self.ok(*options).decode()
        self.assertIn("reads of 20 of 20 keys, zipf 0.99; threads 1, keys a call 5, misses 0 %, verify first, check on",
                      text)
        for name, value in [("calls", "1000"), ("keys", "5000"), ("absent", "0"), ("failed", "0"),
                            ("seconds", r"\d+\.\d{3}"), ("calls/s", r"\d+"), ("keys/s", r"\d+"),
                            ("MB/s", r"\d+\.\d{3}"), ("in_calls", r"\d+\.\d %")]:
            self.assertRegex(text, rf"(?m)^{re.escape(name)} +{value}$")
        self.assertRegex(text, r"\n +mean +p50 +p90 +p99 +p99\.9 +p99\.99 +max\n( +\d+\.\d{3}){7}\n\Z")
        shown = self.ok(*options, "--histogram").decode()
        rows = re.findall(r"(?m)^ +[\d.]+ +[\d.]+ +(\d+) +[\d.]+ +([\d.]+) #+$", shown)
        self.assertEqual(sum(int(calls) for calls, _ in rows), 1000)
        self.assertEqual(rows[-1][1], "100.000")

    def test_json_says_what_was_asked_for(self):
        self.filled()
        told = self.bench("--operations=12", "--duration=60", "--threads=2", "--batch=3", "--warmup=0.001",
                          "--distribution=zipf", "--zipf-exponent=1.5", "--misses=12.5", "--keys=7", "--verify=always",
                          "--check=off", "--seed=99")
        self.assertEqual(told["config"], {
            "threads": 2, "inflight": 1, "batch": 3, "duration_seconds": 60, "operations": 12, "warmup_seconds": 0.001,
            "distribution": "zipf", "zipf_exponent": 1.5, "misses_percent": 12.5, "verify": "always", "check": False,
            "keys": 7, "seed": 99})
        self.assertIsNone(self.bench("--operations=1")["config"]["zipf_exponent"])

    def test_help_says_that_nothing_is_written_and_each_options_limits(self):
        text = self.ok("bench", "--help").decode()
        self.assertIn("Nothing is written", text)
        self.assertRegex(text, r"\n  --threads N .*\(1 to 64; default 1\)\n")
        self.assertRegex(text, r"\n  --zipf-exponent X .*\(0\.01 to 10; default 0\.99\)\n")
        self.assertRegex(text, r"\n  --operations N .*\(1 to 1000000000000000\)\n")

    def start_on_a_terminal(self):
        """A run that would take an hour, and the terminal on which its bar is seen."""
        self.filled()
        master, slave = pty.openpty()
        self.addCleanup(os.close, master)
        process = subprocess.Popen([RDRIVE, "bench", self.store, "--duration", "3600", "--json", "--threads", "2"],
                                   stdout=subprocess.PIPE, stderr=slave, stdin=subprocess.DEVNULL)
        os.close(slave)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        seen = b""
        while b"bench [" not in seen:  # it runs
            self.assertTrue(select.select([master], [], [], DEADLINE_S)[0], seen)
            seen += os.read(master, 4096)
        return process

    def test_ctrl_c_tells_what_was_measured_so_far_and_ends_by_the_signal(self):
        process = self.start_on_a_terminal()
        process.send_signal(signal.SIGINT)
        told = json.loads(process.communicate(timeout=DEADLINE_S)[0])
        self.assertEqual(process.returncode, -signal.SIGINT)
        self.assertTrue(told["interrupted"])
        self.assertGreater(told["calls"], 0)
        self.assertEqual(told["calls"], sum(bucket["calls"] for bucket in told["histogram"]))


class Checking(BenchTest):
    def test_a_damaged_value_that_gathering_meets_is_named_and_left_out(self):
        key_hash = self.damaged_store()
        for verify in ["first", "always"]:
            done = run("bench", self.store, "--operations", "100", "--json", "--verify", verify)
            self.assertEqual(done.returncode, 2)
            self.assertIn(f"key hash {key_hash}: damaged".encode(), done.stderr)
            told = json.loads(done.stdout)
            self.assertEqual((told["damaged_keys"], told["gathered_keys"], told["hits"], told["failed"]),
                             (1, 2, 100, 0))

    def test_the_value_check_finds_what_the_engine_was_told_not_to_check(self):
        key_hash = self.damaged_store()
        for options in [["--batch", "1"], ["--batch", "20", "--threads", "2", "--warmup", "0.001"]]:
            done = run("bench", self.store, "--operations", "100", "--json", "--verify", "off", *options)
            self.assertEqual(done.returncode, 2)
            self.assertRegex(done.stderr.decode(), rf"key hash {key_hash}: value check: [^\n]*\n"
                                                   rf"rdrive: {re.escape(self.store)}: \d+ wrong answers?\n\Z")
            told = json.loads(done.stdout)
            self.assertEqual([failure["key_hash"] for failure in told["failures"]], [key_hash])
            self.assertGreater(told["failed"], 0)
            self.assertGreater(told["hits"], 0)

    def test_without_any_check_a_damaged_value_is_not_noticed(self):
        self.damaged_store()
        told = self.bench("--operations", "100", "--verify", "off", "--check", "off")
        self.assertEqual((told["hits"], told["failed"], told["failures"]), (100, 0, []))

    def test_a_store_of_damaged_keys_alone_has_nothing_to_read(self):
        self.put("gone", b"v")
        self.ok("delete", self.store, "gone")
        self.put("big", b"x" * 100_000)
        data = bytearray(Path(self.store).read_bytes())
        data[50_000] ^= 1
        Path(self.store).write_bytes(data)
        done = run("bench", self.store)
        self.assertEqual((done.returncode, done.stdout), (2, b""))
        self.assertIn(b"there is no key to read: each is damaged", done.stderr)


class Refusing(BenchTest):
    def test_a_value_out_of_range_is_told_with_what_is_allowed_and_touches_no_file(self):
        whole, decimal = "a whole number from", "a number from"
        cases = [
            ("--threads", ["0", "65", "-1", "1.5", "", "two", "0x1", " 1", "1e1", "99999999999999999999"],
             f"{whole} 1 to 64"),
            ("--duration", ["0", "0.0001", "86401", "-1", "inf", "nan", "1e3", "1.2.3", ".", ""],
             f"{decimal} 0.001 to 86400"),
            ("--operations", ["0", "1.0", "1000000000000001", "-5"], f"{whole} 1 to 1000000000000000"),
            ("--warmup", ["3601", "-1", "x"], f"{decimal} 0 to 3600"),
            ("--batch", ["0", "65537", "all"], f"{whole} 1 to 65536"),
            ("--zipf-exponent", ["0", "0.001", "10.1", "-1"], f"{decimal} 0.01 to 10"),
            ("--misses", ["100.1", "-1", "5%"], f"{decimal} 0 to 100"),
            ("--keys", ["0", "1000000001"], f"{whole} 1 to 1000000000"),
            ("--seed", ["4294967296", "-1", "0.5"], f"{whole} 0 to 4294967295"),
            ("--distribution", ["gauss", ""], "uniform, zipf"),
            ("--verify", ["never"], "first, always, off"),
            ("--check", ["maybe"], "on, off"),
        ]
        for option, values, allowed in cases:
            for value in values:
                with self.subTest(option=option, value=value):
                    self.fails(64, "bench", self.store, f"{option}={value}",
                               says=(f'{option}: "{value}" came; allowed: {allowed}\n',))
        self.assertEqual(os.listdir(self.folder), [])

    def test_options_that_contradict_each_other_are_refused(self):
        self.fails(64, "bench", self.store, "--zipf-exponent", "1",
                   says=("--zipf-exponent came without --distribution zipf", "allowed:"))
        self.fails(64, "bench", self.store, "--json", "--histogram", says=("--histogram came with --json", "allowed:"))
        self.fails(64, "bench", self.store, "--threads", "1", "--threads", "2", says="twice")
        self.fails(64, "bench", self.store, "more", says=('"more"', "usage: rdrive bench"))
        self.fails(64, "bench", says="STORE")
        self.fails(64, "info", self.store, "--threads", "1", says="--threads is not allowed here")

    def test_what_is_no_store_or_has_no_key_is_told_in_one_line(self):
        self.fails(2, "bench", self.store, says=(self.store, "No such file"))
        self.fails(2, "bench", self.file("empty", b""), says=("no key to read", "the store has none"))
        self.put("k", b"v")
        self.ok("delete", self.store, "k")
        self.fails(2, "bench", self.store, says=(self.store, "no key to read"))
        self.fails(2, "bench", self.file("text", b"no store at all" * 10), says="not a simd-r-drive store")

    if not os.environ.get("RDRIVE_SANITIZE"):  # whose own memory is larger than any limit
        def test_threads_that_there_is_no_memory_for_end_the_run_before_it_begins(self):
            self.put("k", b"v")
            limit = 300 << 20  # of address space: 64 stacks of a thread's usual size are more, and the store much less
            self.fails(2, "bench", self.store, "--threads", "64",
                       preexec_fn=lambda: (resource.setrlimit(resource.RLIMIT_STACK, (8 << 20, 8 << 20)),
                                           resource.setrlimit(resource.RLIMIT_AS, (limit, limit))),
                       says=("64 threads of 1 keys a call", "out of memory"))

    def test_a_store_that_is_served_is_refused_without_a_list_of_keys(self):
        for store in ["grpc://localhost:1", "grpcs://localhost:1", "unix:/run/x"]:
            self.fails(64, "bench", store, says=(store, "without --key-list"))


if __name__ == "__main__":
    unittest.main()
