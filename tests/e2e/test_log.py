"""The log: whoever reads it may stop, and nobody else waits for that."""

import os
import signal
import subprocess
import threading
import unittest

import grpc
from support import (BIN, DEADLINE_S, DaemonTest, Health, daemon_environment, health_pb2, health_pb2_grpc, logfmt,
                     make_store, reader_pb2, reader_pb2_grpc)


class Unread(DaemonTest):
    def full_pipe(self):
        """Both ends of a pipe that takes no more."""
        read, write = os.pipe()
        self.addCleanup(os.close, read)
        os.set_blocking(write, False)
        try:
            while True:
                os.write(write, b"-" * 4095 + b"\n")
        except BlockingIOError:
            os.set_blocking(write, True)
        return read, write

    def test_a_log_that_nobody_reads_holds_nothing_up_and_what_it_lost_is_counted(self):
        store = make_store(self.folder / "store.srd", {b"key": b"value"})
        socket = f"unix:{self.folder}/socket"
        read, write = self.full_pipe()
        daemon = subprocess.Popen([BIN / "rdrived", store, "--listen", socket], stderr=write, stdin=subprocess.DEVNULL,
                                  env=daemon_environment())
        os.close(write)
        self.addCleanup(daemon.kill)
        with grpc.insecure_channel(socket) as channel:
            reader = reader_pb2_grpc.DataStoreReaderServiceStub(channel)
            for health in health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(),
                                                                    timeout=DEADLINE_S, wait_for_ready=True):
                if health.status == Health.SERVING:
                    break
            answer = reader.Read(reader_pb2.ReadRequest(key=b"key"), timeout=DEADLINE_S)
            self.assertEqual(answer.entry.payload, b"value")
        told = bytearray()

        def drink():
            while piece := os.read(read, 65536):
                told.extend(piece)

        os.read(read, 1 << 20)  # what filled it; no line of the daemon's can be among that
        daemon.send_signal(signal.SIGTERM)
        reading = threading.Thread(target=drink)
        reading.start()
        self.assertEqual(daemon.wait(timeout=DEADLINE_S), 0)
        reading.join(DEADLINE_S)
        lines = [logfmt(line) for line in bytes(told).decode().splitlines() if "event=" in line]
        self.assertEqual(lines[0]["event"], "log lines lost")
        self.assertGreaterEqual(int(lines[0]["lines"]), 2)  # "listening" and "serving"
        self.assertEqual(lines[-1]["event"], "stopped")


if __name__ == "__main__":
    unittest.main()
