"""How the daemon is started: options, environment, addresses, sockets, and its log."""

import json
import os
import re
import stat
import subprocess
import threading
import unittest

from support import (BIN, DEADLINE_S, SANITIZE, Daemon, DaemonTest, daemon_environment, make_store, reader_pb2, tool)

NUMBERS = ["", "x", "-1", "1.5", "1e3", " 1", "1 ", "0x10", "99999999999999999999"]
SIZES = [*NUMBERS, "K", "1KB", "64Q", "99999999999G"]
# Of each option: what is refused, and what the message says is allowed.
BAD = {
    "listen": (["", "localhost", ":50051", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:65536", "127.0.0.1:-1", "unix:"],
               "host:port or unix:/path"),
    "sync": (["", "sometimes", "interval", "interval:", "interval:0", "interval:1s", "interval:3600001"],
             "always, none, or interval:<ms>"),
    "max-value-bytes": ([*SIZES, "65535", "1025G"], "64K to 1024G"),
    "max-queued-bytes": ([*SIZES, "1048575", "1025G"], "1M to 1024G"),
    "stall-timeout": ([*NUMBERS, "86401"], "0 to 86400"),
    "tls-cert": ([""], "a file's path"),
    "tls-key": ([""], "a file's path"),
    "tls-client-ca": ([""], "a file's path"),
    "allow-writer": (["", "cn:"], "a certificate's DNS or URI name, or cn:NAME"),
    "slow-ms": ([*NUMBERS, "3600001"], "0 to 3600000"),
    "verify": (["", "sometimes", "First", "always "], "first, always, off"),
    "index": ([""], "auto, off, or a path"),
    "scrub-rate": ([*SIZES, "1025G"], "0 to 1024G"),
    "threads": ([*NUMBERS, "0", "65"], "1 to 64"),
    "max-batch-keys": ([*NUMBERS, "0", "100000001", "1M"], "1 to 100000000"),
    "max-request-bytes": ([*SIZES, "65535", "1025M"], "64K to 1G"),
    "max-response-bytes": ([*SIZES, "65535", "2G"], "64K to 2147483647"),
    "chunk-bytes": ([*SIZES, "4095", "2G"], "4K to"),
    "max-inflight": ([*NUMBERS, "0", "1000001"], "1 to 1000000"),
    "max-memory": ([*SIZES, "0", "1025G"], "16M to 1024G"),
    "max-connection-age": ([*NUMBERS, "31536001"], "0 to 31536000"),
    "drain-delay": ([*NUMBERS, "3601"], "0 to 3600"),
    "drain-grace": ([*NUMBERS, "0", "3601"], "1 to 3600"),
    "unix-mode": (["", "x", "-1", "888", "1000", "rw"], "0 to 0777, octal"),
    "log-format": (["", "xml", "JSON"], "logfmt, json"),
    "log-level": (["", "loud", "INFO"], "error, warn, info, debug"),
}

# Options that may stand alone; with a value they say what they are.
FLAGS = {"writable": ["", "maybe", "2", "true ", "tru"], "create": ["", "maybe", "-1"]}


def run(*args, env=None):
    """A start that ends by itself: status, stdout, stderr."""
    done = subprocess.run([str(BIN / "rdrived"), *map(str, args)], env=daemon_environment(env), text=True,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=DEADLINE_S)
    return done.returncode, done.stdout, done.stderr


class Options(DaemonTest):
    def setUp(self):
        super().setUp()
        self.store = make_store(self.folder / "store.srd", {b"key": b"value"})

    def limits(self, daemon):
        return daemon.reader_stub().GetStoreInfo(reader_pb2.GetStoreInfoRequest()).limits

    def usage_error(self, *args, env=None, says=()):
        """Ends with 64 and one line, before anything starts."""
        status, out, err = run(*args, env=env)
        self.assertEqual((status, out), (64, ""), (args, err))
        self.assertRegex(err, r"\Ardrived: [^\n]+\n\Z")
        for text in says:
            self.assertIn(text, err)


class CommandLine(Options):
    def test_each_bad_value_is_refused_in_a_line_that_says_what_came_and_what_is_allowed(self):
        cases = [(name, value, allowed) for name, (values, allowed) in BAD.items() for value in values]
        if SANITIZE:  # a start takes long there: each option's first and last
            cases = [(name, values[k], allowed) for name, (values, allowed) in BAD.items() for k in (0, -1)]
        for name, value, allowed in cases:
            with self.subTest(option=name, value=value):
                says = (f"--{name}", f"'{value}'", allowed)
                self.usage_error(self.store, f"--{name}={value}", says=says)
                variable = "RDRIVED_" + name.upper().replace("-", "_")
                self.usage_error(self.store, env={variable: value}, says=(variable, *says[1:]))

    def test_bad_values_of_every_option_are_tried(self):
        listed = re.findall(r"^  --([a-z-]+)( VALUE)?$", run("--help")[1], re.MULTILINE)
        self.assertEqual(sorted(name for name, value in listed if value), sorted(BAD))
        self.assertEqual(sorted(name for name, value in listed if not value), sorted([*FLAGS, "help", "version"]))

    def test_a_flag_takes_nothing_true_or_false(self):
        for name, values in FLAGS.items():
            variable = "RDRIVED_" + name.upper()
            for value in values:
                with self.subTest(option=name, value=value):
                    says = (f"'{value}'", "true or false")
                    self.usage_error(self.store, f"--{name}={value}", says=(f"--{name}", *says))
                    self.usage_error(self.store, env={variable: value}, says=(variable, *says))

    def test_other_usage_errors_say_what_is_wrong(self):
        for args, says in [([], ("STORE", "--help")), ([self.store, "--frobnicate"], ("--frobnicate", "--help")),
                           ([self.store, "-x"], ("-x",)), ([self.store, "other.srd"], ("other.srd", str(self.store))),
                           ([self.store, "--threads"], ("--threads", "1 to 64")), ([""], ("STORE",)),
                           ([self.store, "--chunk-bytes=1M", "--max-response-bytes=64K"],
                            ("--chunk-bytes", "--max-response-bytes")),
                           ([self.store, *["--listen=127.0.0.1:0"] * 100], ("--listen", "at most"))]:
            with self.subTest(args=args):
                self.usage_error(*args, says=says)

    def test_help_lists_each_option_and_goes_to_stdout(self):
        status, out, err = run("--help")
        self.assertEqual((status, err), (0, ""))
        for name, (_, allowed) in BAD.items():
            self.assertRegex(out, rf"(?m)^  --{name} VALUE\n      \S.*\n      allowed: {re.escape(allowed)}")
        for text in ("--version", "--help", "STORE", "RDRIVED_", "64"):
            self.assertIn(text, out)

    def test_version_is_one_line(self):
        status, out, err = run("--version")
        self.assertEqual((status, err), (0, ""))
        self.assertRegex(out, r"\Ardrived \d+\.\d+\.\d+\n\Z")

    def test_values_follow_a_blank_or_an_equals_sign_before_or_after_the_store(self):
        daemon = Daemon("--max-batch-keys", "7", self.store, "--chunk-bytes=8k", "--listen=127.0.0.1:0")
        self.addCleanup(daemon.stop)
        self.assertEqual((self.limits(daemon).max_batch_keys, self.limits(daemon).chunk_bytes), (7, 8192))


    def test_the_log_says_whether_a_snapshot_index_was_used(self):
        daemon = self.serve(self.store)
        self.assertIn("no snapshot index", daemon.event("serving")["index"])
        daemon.stop()
        tool("index", self.store, "--output", self.folder / "index")
        daemon = self.serve(self.store, "--index", str(self.folder / "index"))
        self.assertEqual(daemon.event("serving")["index"], "snapshot index")
        self.assertEqual(daemon.reader_stub().Len(reader_pb2.LenRequest()).len, 1)


class Environment(Options):
    def test_a_variable_sets_its_option_and_the_command_line_wins(self):
        env = {"RDRIVED_MAX_BATCH_KEYS": "11", "RDRIVED_CHUNK_BYTES": "4K", "RDRIVED_LOG_FORMAT": "logfmt"}
        daemon = self.serve(self.store, "--max-batch-keys", "12", env=env)
        self.assertEqual((self.limits(daemon).max_batch_keys, self.limits(daemon).chunk_bytes), (12, 4096))
        self.assertFalse([line for line in daemon.lines if "warning" in line])

    def test_a_repeatable_variable_is_separated_by_commas(self):
        path = self.folder / "socket"
        daemon = Daemon(self.store, "--threads=1", env={"RDRIVED_LISTEN": f"127.0.0.1:0,unix:{path}"})
        self.addCleanup(daemon.stop)
        for address in (daemon.event("listening", 1)["address"], daemon.event("listening", 2)["address"]):
            stub = daemon.reader_stub(daemon.channel(address))
            self.assertEqual(stub.Len(reader_pb2.LenRequest()).len, 1)

    def test_a_listen_on_the_command_line_replaces_those_of_the_environment(self):
        daemon = self.serve(self.store, "--listen", "127.0.0.1:0",
                            env={"RDRIVED_LISTEN": "unix:" + str(self.folder / "unused")})
        self.assertEqual(len(daemon.events("listening")), 1)
        self.assertFalse((self.folder / "unused").exists())

    def test_unknown_variables_are_one_warning(self):
        env = {"RDRIVED_MAX_BATCH_KEY": "1", "RDRIVED_": "1", "RDRIVED_HELP": "1", "RDRIVED_SERVICE": "1",
               "RDRIVED_PORT_X": "1"}
        daemon = self.serve(self.store, env=env)
        warnings = [line for line in daemon.lines if "warning" in line]
        self.assertEqual(len(warnings), 1, daemon.log())
        for name in env:
            self.assertRegex(warnings[0], rf" {name}( |$)")

    def test_what_kubernetes_injects_for_a_service_named_rdrived_passes_in_silence(self):
        env = {"RDRIVED_SERVICE_HOST": "10.0.0.1", "RDRIVED_SERVICE_PORT": "50051", "RDRIVED_SERVICE_PORT_GRPC": "50051",
               "RDRIVED_PORT": "tcp://10.0.0.1:50051", "RDRIVED_PORT_50051_TCP": "tcp://10.0.0.1:50051",
               "RDRIVED_PORT_50051_TCP_PROTO": "tcp", "RDRIVED_PORT_50051_TCP_PORT": "50051",
               "RDRIVED_PORT_50051_TCP_ADDR": "10.0.0.1", "RDRIVED_READ_SERVICE_HOST": "10.0.0.2",
               "RDRIVED_READ_PORT_9464_TCP_ADDR": "10.0.0.2"}
        daemon = self.serve(self.store, env=env)
        self.assertEqual([line for line in daemon.lines if not line.startswith("ts=")], [])
        self.assertEqual(daemon.events("warning"), [])


class Starting(Options):
    def error_of(self, *args, **options):
        """The one error line of a start that fails with status 2."""
        lines = [line for line in self.refused(*args, **options) if "level=error" in line]
        self.assertEqual(len(lines), 1, lines)
        return lines[0]

    def test_a_store_that_cannot_be_opened_is_status_2_and_one_line(self):
        text = self.folder / "text"
        text.write_text("no store at all")
        secret = self.folder / "fifo"
        os.mkfifo(secret)
        for path, says in [(self.folder / "none.srd", "No such file"), (self.folder, "not a regular file"),
                           (secret, "not a regular file"), (text, "not a simd-r-drive store")]:
            line = self.error_of(path)
            self.assertIn(str(path), line)
            self.assertIn(says, line)

    def test_a_port_in_use_is_refused_and_the_first_daemon_keeps_all_calls(self):
        first = self.serve(self.store)
        other = make_store(self.folder / "other.srd", {b"a": b"1", b"b": b"2"})
        line = self.error_of(other, "--listen", first.address())
        self.assertIn(first.address(), line)
        for _ in range(100):  # each on a connection of its own
            channel = first.channel()
            self.assertEqual(first.reader_stub(channel).Len(reader_pb2.LenRequest()).len, 1)
            channel.close()

    def test_an_address_of_another_host_is_refused(self):
        self.assertIn("192.0.2.1:50051", self.error_of(self.store, "--listen", "192.0.2.1:50051"))


class UnixSocket(Options):
    def setUp(self):
        super().setUp()
        self.path = self.folder / "rdrive.sock"
        self.lock = self.folder / "rdrive.sock.lock"
        self.address = f"unix:{self.path}"

    def start(self, *args, **options):
        return self.serve(self.store, "--listen", self.address, *args, **options)

    def assert_serves(self, daemon):
        stub = daemon.reader_stub(daemon.channel(self.address))
        self.assertEqual(stub.Read(reader_pb2.ReadRequest(key=b"key")).entry.payload, b"value")

    def refusal(self, *args):
        lines = [line for line in self.refused(self.store, "--listen", self.address, *args) if "level=error" in line]
        self.assertEqual(len(lines), 1, lines)
        self.assertIn(str(self.path), lines[0])
        return lines[0]

    def test_it_serves_and_takes_socket_and_lock_away_when_it_stops(self):
        daemon = self.start()
        self.assertEqual(daemon.address(), self.address)
        self.assert_serves(daemon)
        self.assertEqual(self.lock.read_text().strip(), str(daemon.pid))
        daemon.stop()
        self.assertEqual(sorted(os.listdir(self.folder)), ["store.srd", "store.srd.writer"])

    def test_its_mode_is_what_unix_mode_says_whatever_the_umask(self):
        for mode in ("0600", "0660", "666", "0700"):
            before = os.umask(0o077 if mode == "666" else 0)
            try:
                daemon = self.start("--unix-mode", mode)
            finally:
                os.umask(before)
            self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), int(mode, 8))
            daemon.stop()

    def test_a_second_daemon_is_refused_by_the_pid_of_the_first_which_goes_on(self):
        first = self.start()
        self.assertRegex(self.refusal(), rf"\b{first.pid}\b")
        self.assert_serves(first)
        self.assertTrue(self.path.exists() and self.lock.exists())

    def test_what_is_not_a_socket_is_refused_and_left_alone(self):
        self.path.write_text("precious")
        self.refusal()
        self.assertEqual(self.path.read_text(), "precious")
        self.path.unlink()
        self.path.symlink_to(self.store)
        before = self.store.read_bytes()
        self.refusal()
        self.assertTrue(self.path.is_symlink())
        self.path.unlink()
        self.path.mkdir()
        self.refusal()
        self.assertTrue(self.path.is_dir())
        self.assertEqual(self.store.read_bytes(), before)

    def test_what_a_killed_daemon_left_is_taken_over(self):
        dead = Daemon(self.store, "--listen", self.address)
        dead.process.kill()
        dead.wait()
        dead.process.stderr.close()
        self.assertTrue(self.path.exists() and self.lock.exists())
        daemon = self.start()
        self.assert_serves(daemon)
        daemon.stop()
        self.assertEqual(sorted(os.listdir(self.folder)), ["store.srd", "store.srd.writer"])

    def test_of_many_that_start_at_once_one_serves(self):
        daemons = [Daemon(self.store, "--listen", self.address, ready=False) for _ in range(8)]
        ended = threading.Semaphore(0)
        for daemon in daemons:
            threading.Thread(target=lambda daemon=daemon: (daemon.wait(), ended.release()), daemon=True).start()
        for _ in range(7):
            self.assertTrue(ended.acquire(timeout=DEADLINE_S))
        winner = next(daemon for daemon in daemons if daemon.process.poll() is None)
        self.addCleanup(winner.stop)
        winner.event("serving")
        self.assert_serves(winner)
        for daemon in daemons:
            if daemon is not winner:
                daemon.stop(status=2)

    def test_a_path_too_long_for_the_kernel_is_refused(self):
        self.path = self.folder / ("x" * 120)
        self.address = f"unix:{self.path}"
        self.assertIn("107", self.refusal())

    def test_a_lock_that_is_a_symlink_is_not_followed(self):
        precious = self.folder / "precious"
        precious.write_text("precious")
        self.lock.symlink_to(precious)
        self.refusal()
        self.assertEqual(precious.read_text(), "precious")


class Log(Options):
    def lines_of(self, daemon):
        return [json.loads(line) for line in daemon.log().splitlines()]

    def run_with(self, store, *args):
        """Start and stop; the log."""
        daemon = Daemon(store, "--log-format", "json", *args, ready=False)
        while not any('"event":"serving"' in line for line in daemon.lines):
            with daemon.changed:
                self.assertTrue(not daemon.ended and daemon.changed.wait(DEADLINE_S), daemon.log())
        daemon.stop()
        return self.lines_of(daemon)

    def test_json_lines_parse_and_tell_the_life_of_a_daemon(self):
        lines = self.run_with(self.store)
        events = [line["event"] for line in lines if line["event"] != "grpc"]
        self.assertEqual(events, ["listening", "memory limit", "serving", "draining", "stopping", "stopped"])
        for line in lines:
            self.assertRegex(line["ts"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")
            self.assertIn(line["level"], ("error", "warn", "info", "debug"))
        serving = lines[events.index("serving")]
        self.assertEqual((serving["store"], serving["keys"], serving["entries"]), (str(self.store), 1, 1))

    def test_json_lines_parse_with_any_path(self):
        deep = self.folder / "/".join(["d" * 200] * 13)
        deep.mkdir(parents=True)
        for path in (self.folder / 'quote " backslash \\ tab \t newline \n é', deep / "store.srd",
                     os.fsencode(self.folder) + b"/not \xff utf-8 \xc3"):
            os.link(self.store, path)
            self.run_with(os.fsdecode(path))

    def test_debug_lines_of_grpc_parse_too(self):
        self.assertTrue(self.run_with(self.store, "--log-level", "debug"))

    def test_the_level_decides_what_is_logged(self):
        daemon = Daemon(self.store, "--listen", f"unix:{self.folder}/s", "--log-level", "error", ready=False)
        self.addCleanup(daemon.stop)
        stub = daemon.reader_stub(daemon.channel(f"unix:{self.folder}/s"))
        self.assertEqual(stub.Len(reader_pb2.LenRequest(), wait_for_ready=True, timeout=DEADLINE_S).len, 1)
        daemon.stop()
        self.assertEqual(daemon.log(), "")


if __name__ == "__main__":
    unittest.main()
