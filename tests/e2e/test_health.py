"""The health service, as load balancers and orchestrators use it."""

import signal
import unittest

import grpc

from support import (HEALTH, KEEP_NOTHING, KIB, READER, SANITIZE, WRITER, Code, DaemonTest, Health, eventually,
                     health_pb2, make_store, tell)

REFLECTION = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
SERVICES = {"": Health.SERVING, READER: Health.SERVING, WRITER: Health.NOT_SERVING, HEALTH: Health.SERVING,
            **{name: Health.SERVING for name in REFLECTION}}
UNKNOWN = "rdrive.v1.NoSuchService"
FLAT = {"": 512 * KIB, "address": 2048 * KIB, "thread": 8192 * KIB}[SANITIZE]


def named(service):
    return health_pb2.HealthCheckRequest(service=service)


class HealthTest(DaemonTest):
    options = ()

    def setUp(self):
        super().setUp()
        path = make_store(self.folder / "store.srd", {b"key": b"value"})
        self.daemon = self.serve(path, *self.options, env=KEEP_NOTHING)
        self.stub = self.daemon.health_stub()


class Check(HealthTest):
    def test_check_tells_each_service_and_the_writer_is_not_serving(self):
        for service, status in SERVICES.items():
            self.assertEqual(self.stub.Check(named(service)).status, status, service)

    def test_check_of_an_unknown_service_is_not_found(self):
        for service in (UNKNOWN, "rdrive.v1", READER + "/Read", "x" * 100_000):
            self.fails(Code.NOT_FOUND, lambda: self.stub.Check(named(service)), service[:50],
                       reason="UNKNOWN_SERVICE")

    def test_list_is_what_check_says_of_each(self):
        statuses = self.stub.List(health_pb2.HealthListRequest()).statuses
        self.assertEqual({service: answer.status for service, answer in statuses.items()}, SERVICES)


class Watch(HealthTest):
    def test_watch_sends_the_current_status_at_once(self):
        for service, status in {**SERVICES, UNKNOWN: Health.SERVICE_UNKNOWN}.items():
            watch = self.stub.Watch(named(service), timeout=10)
            self.assertEqual(next(watch).status, status, service)
            watch.cancel()

    def test_watch_stays_open_and_silent_while_nothing_changes(self):
        watch = self.stub.Watch(named(""), timeout=1)
        self.assertEqual(next(watch).status, Health.SERVING)
        self.fails(Code.DEADLINE_EXCEEDED, lambda: watch)

    def test_sigterm_is_told_to_every_watch_which_then_ends_unavailable(self):
        watches = {service: self.stub.Watch(named(service)) for service in (*SERVICES, UNKNOWN)}
        first = {service: next(watch).status for service, watch in watches.items()}
        self.assertEqual(first, {**SERVICES, UNKNOWN: Health.SERVICE_UNKNOWN})
        self.daemon.send(signal.SIGTERM)
        for service, watch in watches.items():
            later = []
            with self.assertRaises(grpc.RpcError) as caught:
                for answer in watch:
                    later.append(answer.status)
            self.assertEqual(caught.exception.code(), Code.UNAVAILABLE)
            changes = [Health.NOT_SERVING] if first[service] == Health.SERVING else []
            self.assertEqual(later, changes, service)
        self.assertEqual(self.daemon.wait(), 0)

    def test_watchers_that_cancel_leave_the_connection_to_others(self):
        watches = [self.stub.Watch(named("")) for _ in range(100)]
        for watch in watches:
            self.assertEqual(next(watch).status, Health.SERVING)
        for watch in watches[:99]:
            watch.cancel()
        self.assertEqual(self.stub.Check(named("")).status, Health.SERVING)
        self.assertTrue(watches[99].is_active())
        self.daemon.send(signal.SIGTERM)
        self.assertEqual(next(watches[99]).status, Health.NOT_SERVING)
        self.assertEqual(self.daemon.wait(), 0)


class WatchOnOneQueue(HealthTest):
    options = ("--threads", "1")

    def test_watchers_that_leave_leave_nothing(self):
        def come_and_go():
            channel = self.daemon.channel()
            stub = self.daemon.health_stub(channel)
            watches = [stub.Watch(named(service)) for service in list(SERVICES) * 25]
            self.assertEqual([next(watch).status for watch in watches], list(SERVICES.values()) * 25)
            channel.close()

        self.stub.Check(named(""))
        descriptors = self.daemon.descriptors()
        for _ in range(3):  # each queue keeps the memory of calls that ended, up to a number, for later ones
            come_and_go()
        before = self.daemon.memory()
        for _ in range(10):
            come_and_go()
        eventually(lambda: self.daemon.descriptors() == descriptors, "the connections are closed")
        eventually(lambda: self.daemon.memory() - before < FLAT, "their memory is free")
        tell(f"1,000 watchers that left grew the daemon by {(self.daemon.memory() - before) / KIB:.0f} KiB")


class WatchDuringDelay(HealthTest):
    options = ("--drain-delay", "3600")

    def test_a_watch_that_comes_during_the_delay_is_told_not_serving_and_stays(self):
        before = self.stub.Watch(named(""))
        self.assertEqual(next(before).status, Health.SERVING)
        self.daemon.send(signal.SIGTERM)
        self.assertEqual(next(before).status, Health.NOT_SERVING)
        self.assertEqual(next(self.stub.Watch(named(READER))).status, Health.NOT_SERVING)
        statuses = self.stub.List(health_pb2.HealthListRequest()).statuses
        self.assertEqual({answer.status for answer in statuses.values()}, {Health.NOT_SERVING})
        self.assertTrue(before.is_active())
        self.daemon.send(signal.SIGTERM)  # the second one hurries


if __name__ == "__main__":
    unittest.main()
