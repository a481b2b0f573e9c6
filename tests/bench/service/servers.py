"""Servers that the bench starts on loopback, each pinned to a processor, and the load it puts on them."""

import os
import re
import signal
import socket
import subprocess
import tempfile
import time

READY_S = 120


def free_port():
    """A port that nobody listens on: for servers that can't be told to choose one."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def pinned(processor, command, fifo=False):
    first = ["chrt", "-f", "10"] if fifo else []
    return [*first, *(command if processor is None else ["taskset", "-c", str(processor), *command])]


class Server:
    """A process that is ready once its log says so (`ready`), or else once its port takes a connection."""

    def __init__(self, command, ready=None, port=None, processor=None, fifo=False):
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(pinned(processor, command, fifo), stdin=subprocess.DEVNULL,
                                        stdout=self.log, stderr=self.log)
        try:
            self.address = self._wait(ready) if ready else f"127.0.0.1:{port}"
            if not ready:
                self._connect(port)
        except BaseException:
            self.process.kill()
            raise

    @property
    def pid(self):
        return self.process.pid

    def text(self):
        return os.pread(self.log.fileno(), 1 << 20, 0).decode(errors="replace")

    def logged(self, name):
        """A field of its log."""
        return re.search(rf"{name}=(\S+)", self.text()).group(1)

    def _until(self, condition):
        deadline = time.monotonic() + READY_S
        while not condition():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.process.args} is not ready:\n{self.text()}")
            time.sleep(0.01)

    def _wait(self, ready):
        self._until(lambda: re.search(ready, self.text()))
        return self.logged("address")

    def _connect(self, port):
        def taken():
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0
        self._until(taken)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(READY_S)
        self.log.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


class Programs:
    """The programs of one build tree."""

    def __init__(self, folder, server_processor=None, client_processor=None, fifo=False):
        self.folder, self.client_processor, self.fifo = folder, client_processor, fifo
        self.place = {"processor": server_processor, "fifo": fifo}

    def path(self, name):
        return os.path.join(self.folder, name)

    def rdrived(self, store, *options, threads=1, before=()):
        return Server([*before, self.path("rdrived"), store, "--listen", "127.0.0.1:0", "--threads", str(threads),
                       "--index", "off", *options], ready="event=serving", **self.place)

    def echo(self, answer_bytes, *options, threads=1, before=()):
        return Server([*before, self.path("bench_service_echo"), "--bytes", str(answer_bytes), "--threads",
                       str(threads), *options], ready="listening", **self.place)

    def echo_callback(self, payload_bytes):
        """None where it wasn't built: it needs g++ and gRPC's C++ library."""
        if not os.path.exists(self.path("bench_service_echo_callback")):
            return None
        return Server([self.path("bench_service_echo_callback"), str(payload_bytes)], ready="listening",
                      **self.place)

    def redis(self, keys, value_bytes):
        """As its users set it for speed: nothing is saved, its one thread serves. Filled."""
        port = free_port()
        server = Server(["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly",
                         "no"], port=port, **self.place)
        return self.filled("redis", server, keys, value_bytes)

    def memcached(self, keys, value_bytes):
        """One thread, memory for all, a table that needn't grow. Filled."""
        port = free_port()
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        server = Server(["memcached", "-l", "127.0.0.1", "-p", str(port), "-U", "0", "-t", "1", "-m", "4096", "-o",
                         "hashpower=21", *user], port=port, **self.place)
        return self.filled("memcached", server, keys, value_bytes)

    def filled(self, target, server, keys, value_bytes):
        try:
            subprocess.run([self.path("bench_service_load"), "--target", target, "--address", server.address, "--fill",
                            "--keys", str(keys), "--value-bytes", str(value_bytes)], check=True)
        except BaseException:
            server.stop()
            raise
        return server

    def make_store(self, path, keys, value_bytes):
        subprocess.run([self.path("bench_service_load"), "--make", path, "--keys", str(keys), "--value-bytes",
                        str(value_bytes)], check=True)

    def load(self, server, **options):
        """Run the load generator. Returns its figures."""
        command = [self.path("bench_service_load"), "--address", server.address, "--pid", str(server.pid)]
        options.setdefault("target", "grpc")
        for name, value in options.items():
            if value is True:
                command.append("--" + name.replace("_", "-"))
            elif value not in (None, False):
                command += ["--" + name.replace("_", "-"), str(value)]
        done = subprocess.run(pinned(self.client_processor, command, self.fifo), stdout=subprocess.PIPE, text=True, check=True)
        return {name: float(number) for name, number in map(str.split, done.stdout.splitlines())}
