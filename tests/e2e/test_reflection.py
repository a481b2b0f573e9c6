"""Reflection, both versions: all that a client without the .proto files needs, told in one stream."""

import os
import signal
import threading
import unittest

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool

from support import (HEALTH, KEEP_NOTHING, KIB, READER, SANITIZE, WRITER, Code, DaemonTest, entry_pb2, eventually,
                     health_pb2, make_store, reader_pb2, reflection_pb2, reflection_pb2_grpc, tell, v1alpha_pb2,
                     v1alpha_pb2_grpc, writer_pb2)

SERVICES = sorted([HEALTH, READER, WRITER, "grpc.reflection.v1.ServerReflection",
                   "grpc.reflection.v1alpha.ServerReflection"])
FILES = {module.DESCRIPTOR.name: module.DESCRIPTOR
         for module in (entry_pb2, reader_pb2, writer_pb2, health_pb2, reflection_pb2, v1alpha_pb2)}
FLAT = {"": 512 * KIB, "address": 2048 * KIB, "thread": 8192 * KIB}[SANITIZE]


def files_of(response):
    files = [descriptor_pb2.FileDescriptorProto.FromString(each)
             for each in response.file_descriptor_response.file_descriptor_proto]
    assert files, response
    return files


def names(response):
    return [file.name for file in files_of(response)]


def plain(descriptor):
    """What a compiled file says, as a message."""
    file = descriptor_pb2.FileDescriptorProto()
    descriptor.CopyToProto(file)
    messages = list(file.message_type)
    for message in messages:
        messages.extend(message.nested_type)
        for field in message.field:
            field.ClearField("json_name")  # plugins, such as Python's, are not told the names that follow by rule
    return file


class ReflectionTest(DaemonTest):
    options = ()

    def setUp(self):
        super().setUp()
        path = make_store(self.folder / "store.srd", {b"key": b"value"})
        self.daemon = self.serve(path, *self.options, env=KEEP_NOTHING)
        self.connect()

    def connect(self):
        self.channel = self.daemon.channel()
        self.stubs = {"v1": reflection_pb2_grpc.ServerReflectionStub(self.channel),
                      "v1alpha": v1alpha_pb2_grpc.ServerReflectionStub(self.channel)}

    def ask(self, *requests, version="v1"):
        """The responses to a stream of these requests, each a dictionary."""
        module = {"v1": reflection_pb2, "v1alpha": v1alpha_pb2}[version]
        requests = [module.ServerReflectionRequest(**request) for request in requests]
        responses = list(self.stubs[version].ServerReflectionInfo(iter(requests), timeout=30))
        self.assertEqual([response.original_request for response in responses], requests)
        self.assertEqual([response.valid_host for response in responses], [request.host for request in requests])
        return responses

    def open_stream(self):
        """A stream of which one answer has come, and which stays open; and what sends a request on it."""
        call = self.channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
                                          reflection_pb2.ServerReflectionRequest.SerializeToString,
                                          reflection_pb2.ServerReflectionResponse.FromString)
        return Conversation(call)


class Conversation:
    """One request at a time, the next when its answer has come."""

    def __init__(self, call):
        self.requests = []
        self.more = threading.Condition()
        self.ended = False
        self.answers = call(self._requests())

    def _requests(self):
        while True:
            with self.more:
                while not self.requests and not self.ended:
                    self.more.wait()
                if not self.requests:
                    return
                request = self.requests.pop(0)
            yield request

    def ask(self, **request):
        with self.more:
            self.requests.append(reflection_pb2.ServerReflectionRequest(**request))
            self.more.notify()
        return next(self.answers)

    def end(self):
        with self.more:
            self.ended = True
            self.more.notify()


class Answers(ReflectionTest):
    def test_both_versions_list_every_service_in_order(self):
        for version in self.stubs:
            response, = self.ask({"list_services": "*", "host": "some.host"}, version=version)
            self.assertEqual([service.name for service in response.list_services_response.service], SERVICES)

    def test_what_is_told_is_what_the_proto_files_say_with_their_comments(self):
        for version in self.stubs:
            pool, told = descriptor_pool.DescriptorPool(), {}
            for service in SERVICES:
                response, = self.ask({"file_containing_symbol": service}, version=version)
                told.update({file.name: file for file in files_of(response)})
            self.assertEqual(set(told), set(FILES))
            for name, file in told.items():
                self.assertTrue(any(each.leading_comments for each in file.source_code_info.location), name)
                file.ClearField("source_code_info")
            for name in FILES:  # a pool takes a file once its imports are there
                pool.Add(told[name])
                self.assertEqual(plain(pool.FindFileByName(name)), plain(FILES[name]), name)

    def test_a_symbol_is_found_with_and_without_its_leading_dot(self):
        for symbol, file in {
                f"{READER}.ReadStream": "rdrive/v1/reader.proto",
                "rdrive.v1.Entry": "rdrive/v1/entry.proto",
                "rdrive.v1.ReadStreamRequest.selector": "rdrive/v1/reader.proto",
                "grpc.health.v1.HealthCheckResponse.ServingStatus": "grpc/health/v1/health.proto",
                "grpc.health.v1.HealthCheckResponse.SERVING": "grpc/health/v1/health.proto"}.items():
            plain, dotted = self.ask({"file_containing_symbol": symbol}, {"file_containing_symbol": "." + symbol})
            self.assertEqual((names(plain)[0], names(dotted)[0]), (file, file), symbol)

    def test_imports_come_once_a_stream_and_again_on_the_next(self):
        for _ in range(2):
            responses = self.ask(*[{"file_by_filename": f"rdrive/v1/{name}.proto"} for name in
                                   ("reader", "reader", "writer", "entry")])
            self.assertEqual([names(response) for response in responses], [
                ["rdrive/v1/reader.proto", "rdrive/v1/entry.proto"], ["rdrive/v1/reader.proto"],
                ["rdrive/v1/writer.proto"], ["rdrive/v1/entry.proto"]])

    def test_what_there_is_not_is_an_error_and_the_stream_goes_on(self):
        extension = {"containing_type": "rdrive.v1.Entry", "extension_number": 1000}
        for version in self.stubs:
            *errors, last = self.ask({"file_by_filename": "no/such.proto"}, {"file_containing_symbol": "rdrive.v1"},
                                     {"file_containing_symbol": "rdrive.v1.NoSuch"},
                                     {"file_containing_extension": extension},
                                     {"all_extension_numbers_of_type": "no.Such"}, {"host": "only"},
                                     {"list_services": ""}, version=version)
            codes = [Code.NOT_FOUND] * 5 + [Code.INVALID_ARGUMENT]
            self.assertEqual([error.error_response.error_code for error in errors], [code.value[0] for code in codes])
            self.assertTrue(all(error.error_response.error_message for error in errors))
            self.assertEqual(len(last.list_services_response.service), len(SERVICES))

    def test_a_known_type_has_no_extensions(self):
        response, = self.ask({"all_extension_numbers_of_type": "rdrive.v1.Entry"})
        self.assertEqual(response.WhichOneof("message_response"), "all_extension_numbers_response")
        self.assertEqual(list(response.all_extension_numbers_response.extension_number), [])
        self.assertEqual(response.all_extension_numbers_response.base_type_name, "rdrive.v1.Entry")

    def test_a_stream_without_a_request_is_ok_without_a_response(self):
        self.assertEqual(self.ask(), [])


class Streams(ReflectionTest):
    def raw(self, *messages):
        call = self.channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
        return call(iter(messages), timeout=30)

    def test_a_malformed_request_ends_its_stream_and_no_other(self):
        other = self.open_stream()
        other.ask(list_services="")
        for message in (b"\xff", b"\x0a\x05host", b"\x1b", b"\x52\x00" * 50_000):
            self.fails(Code.INVALID_ARGUMENT, lambda: self.raw(message), reason="MALFORMED")
        self.assertEqual(len(other.ask(list_services="").list_services_response.service), len(SERVICES))
        other.end()
        self.assertEqual(list(other.answers), [])
        self.assertEqual(other.answers.code(), Code.OK)

    def test_a_request_longer_than_any_name_is_refused(self):
        request = reflection_pb2.ServerReflectionRequest(file_containing_symbol="x" * 65_000)
        self.assertEqual(len(list(self.raw(request.SerializeToString()))), 1)
        request.file_containing_symbol += "x" * 1_000
        self.fails(Code.INVALID_ARGUMENT, lambda: self.raw(request.SerializeToString()), "65536", reason="MALFORMED")

    def test_a_long_stream_and_many_streams_leave_nothing(self):
        def come_and_go():
            for symbol in (READER, "rdrive.v1.NoSuch", "x" * 2000):
                self.assertEqual(len(self.ask(*[{"file_containing_symbol": symbol}] * 500)), 500)
            for _ in range(100):
                self.ask({"list_services": ""})
            streams = [self.open_stream() for _ in range(20)]
            for stream in streams:
                stream.ask(list_services="")
            for stream in streams:
                stream.answers.cancel()
                stream.end()

        for _ in range(2):
            come_and_go()
        before = self.daemon.memory()
        for _ in range(5):
            come_and_go()
        eventually(lambda: self.daemon.memory() - before < FLAT, "their memory is free")
        tell(f"8,100 reflection requests grew the daemon by {(self.daemon.memory() - before) / KIB:.0f} KiB")

    def test_an_open_stream_does_not_hold_a_drain(self):
        stream = self.open_stream()
        stream.ask(list_services="")
        self.daemon.send(signal.SIGTERM)
        with self.assertRaises(grpc.RpcError) as caught:
            next(stream.answers)
        self.assertEqual(caught.exception.code(), Code.UNAVAILABLE)
        stream.end()
        self.assertEqual(self.daemon.wait(timeout=15), 0)  # and not the 20 seconds of --drain-grace


class Shed(ReflectionTest):
    options = ("--max-inflight", "1")

    def test_reflection_is_served_when_too_many_calls_are_open_and_takes_no_place(self):
        streams = [self.open_stream() for _ in range(5)]
        for stream in streams:
            self.assertTrue(stream.ask(list_services="").list_services_response.service)
        stub = self.daemon.reader_stub(self.channel)
        self.assertEqual(stub.Read(reader_pb2.ReadRequest(key=b"key")).entry.payload, b"value")
        for stream in streams:
            stream.end()


class NotReady(ReflectionTest):
    def setUp(self):
        DaemonTest.setUp(self)
        path = make_store(self.folder / "slow.srd", {b"key": b"value"})
        os.truncate(path, 256 << 30)  # a hole that takes longer than the test to be searched through
        self.daemon = self.serve(path, ready=False)
        self.connect()

    def test_reflection_is_served_before_the_store_is_open(self):
        for version in self.stubs:
            listed, file = self.ask({"list_services": ""}, {"file_containing_symbol": READER}, version=version)
            self.assertEqual(len(listed.list_services_response.service), len(SERVICES))
            self.assertEqual(names(file)[0], "rdrive/v1/reader.proto")
        self.assertFalse(self.daemon.events("serving"))


if __name__ == "__main__":
    unittest.main()
