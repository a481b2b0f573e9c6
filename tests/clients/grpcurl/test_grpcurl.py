"""grpcurl against the daemon, by reflection alone: it has no .proto file. RDRIVE_GRPCURL names the program.

Every method of every service is called, and what it answers is compared.
"""

import base64
import json
import os
import re
import subprocess
import sys
import unittest
from pathlib import Path
from unittest.mock import ANY

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "e2e"))
from support import (DEADLINE_S, HEALTH, READER, WRITER, DaemonTest, entry_pb2, health_pb2, make_store,  # noqa: E402
                     reader_pb2, reflection_pb2, v1alpha_pb2, writer_pb2, xxh3)

GRPCURL = os.environ["RDRIVE_GRPCURL"]
MODULES = (entry_pb2, reader_pb2, writer_pb2, health_pb2, reflection_pb2, v1alpha_pb2)
SERVICES = {service.full_name: service
            for module in MODULES for service in module.DESCRIPTOR.services_by_name.values()}
MESSAGES = [message for module in MODULES for message in module.DESCRIPTOR.message_types_by_name.values()]
REFLECTIONS = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
STATUS = 64  # grpcurl ends with this plus the status code of a call that fails

KEY, VALUE, OTHER = b"some key 1", b"value", b"some key 2"


def b64(plain):
    return base64.b64encode(plain).decode()


def documents(text):
    """The JSON documents of an output, one after the other."""
    found, at, decoder = [], 0, json.JSONDecoder()
    text = text.strip()
    while at < len(text):
        document, at = decoder.raw_decode(text, at)
        found.append(document)
        at += len(text[at:]) - len(text[at:].lstrip())
    return found


def full(method):
    return f"{method.containing_service.full_name}/{method.name}"


METADATA = {"keyHash": str(xxh3(KEY)), "checksum": ANY}  # where it lies, the first, is 0 and left out
ENTRY = {"payload": b64(VALUE), "metadata": METADATA}
COMMIT = {"tailOffset": ANY, "durable": True}
NEW, NEWER = b64(b"new"), b64(b"newer")
LISTED = {"originalRequest": {"listServices": "*"},
          "listServicesResponse": {"service": [{"name": name} for name in sorted(SERVICES)]}}

# In this order: what is asked of a method, and what it answers. ANY is for numbers that are the store's affair.
CALLS = [
    (READER + "/Exists", [{"key": b64(KEY)}], [{"exists": True}]),
    (READER + "/ExistsWithKeyHash", [{"keyHash": str(xxh3(KEY))}], [{"exists": True}]),
    (READER + "/Read", [{"key": b64(KEY)}], [{"entry": ENTRY}]),
    (READER + "/ReadWithKeyHash", [{"keyHash": str(xxh3(KEY))}], [{"entry": ENTRY}]),
    (READER + "/ReadLastEntry", [{}], [{"entry": {"payload": b64(b"another"), "metadata": ANY}}]),
    (READER + "/BatchRead", [{"keys": [b64(KEY), NEW]}], [{"items": [{"entry": ENTRY}, {"index": 1, "absent": {}}]}]),
    (READER + "/BatchReadHashedKeys", [{"keyHashes": [str(xxh3(KEY)), "1"]}],
     [{"items": [{"entry": ENTRY}, {"index": 1, "absent": {}}]}]),
    (READER + "/ReadMetadata", [{"key": b64(KEY)}], [{"metadata": METADATA}]),
    (READER + "/Len", [{}], [{"len": "2"}]),
    (READER + "/IsEmpty", [{}], [{}]),
    (READER + "/FileSize", [{}], [{"fileSize": ANY}]),
    (READER + "/BatchReadStream", [{"keys": [NEW, b64(KEY)], "omitMetadata": True}],
     [{"items": [{"absent": {}}, {"index": 1, "entry": {"payload": b64(VALUE)}}]}]),
    (READER + "/ReadStream", [{"key": b64(KEY), "offset": 1, "limit": 3}],
     [{"fragment": {"metadata": METADATA, "payloadSize": "5", "payloadOffset": "1", "data": b64(b"alu")}}]),
    (READER + "/GetStoreInfo", [{}], ANY),
    (WRITER + "/Write", [{"key": NEW, "payload": b64(b"1")}], [{"commit": COMMIT}]),
    (WRITER + "/WriteWithKeyHash", [{"keyHash": "1", "payload": b64(b"2")}], [{"commit": COMMIT}]),
    (WRITER + "/BatchWrite", [{"items": [{"key": NEW, "payload": b64(b"3")}]}], [{"commit": COMMIT}]),
    (WRITER + "/BatchWriteWithKeyHashes", [{"items": [{"keyHash": "2", "payload": b64(b"4")}]}], [{"commit": COMMIT}]),
    (WRITER + "/WriteStream", [{"keyHash": "3", "data": b64(b"all ")}, {"data": b64(b"of it")}],
     [{"commit": COMMIT, "payloadSize": "9", "checksum": ANY}]),
    (WRITER + "/Rename", [{"oldKey": NEW, "newKey": NEWER}], [{"commit": COMMIT}]),
    (READER + "/ReadStream", [{"keyHash": "3"}],
     [{"fragment": {"metadata": ANY, "payloadSize": "9", "data": b64(b"all of it")}}]),
    (WRITER + "/Delete", [{"key": NEWER}], [{"commit": COMMIT, "deletedCount": "1"}]),
    (WRITER + "/BatchDelete", [{"keys": [NEWER, b64(OTHER)]}], [{"commit": COMMIT, "deletedCount": "1"}]),
    (WRITER + "/BatchDeleteKeyHashes", [{"keyHashes": ["1", "2"]}], [{"commit": COMMIT, "deletedCount": "2"}]),
    (HEALTH + "/Check", [{"service": READER}], [{"status": "SERVING"}]),
    (HEALTH + "/List", [{}], ANY),
    *[(name + "/ServerReflectionInfo", [{"listServices": "*"}, {"listServices": "*"}], [LISTED, LISTED])
      for name in REFLECTIONS],
]
STREAMS_WITHOUT_END = {HEALTH + "/Watch"}
COMPACT = WRITER + "/Compact"  # as many messages as it has to tell


class Grpcurl(DaemonTest):
    def setUp(self):
        super().setUp()
        self.daemon = self.serve(make_store(self.folder / "store.srd", {KEY: VALUE, OTHER: b"another"}), "--writable")

    def command(self, *args, options=()):
        return [GRPCURL, "-plaintext", *options, self.daemon.address(), *args]

    def grpcurl(self, *args, options=(), status=0):
        """What it prints, or, where it is to fail, its complaint."""
        done = subprocess.run(self.command(*args, options=options), text=True, stdin=subprocess.DEVNULL,
                              capture_output=True, timeout=DEADLINE_S)
        self.assertEqual(done.returncode, status, done.stderr)
        return done.stdout if status == 0 else done.stderr

    def call(self, method, requests, status=0):
        said = self.grpcurl(method, options=("-d", " ".join(map(json.dumps, requests))), status=status)
        return documents(said) if status == 0 else said

    def test_list_names_every_service_and_the_methods_of_each(self):
        self.assertEqual(self.grpcurl("list").split(), sorted(SERVICES))
        for name, service in SERVICES.items():
            methods = sorted(f"{name}.{method.name}" for method in service.methods)
            self.assertEqual(self.grpcurl("list", name).split(), methods)

    def test_describe_shows_every_service_with_the_comments_of_the_contract(self):
        for name, service in SERVICES.items():
            said = self.grpcurl("describe", name)
            for method in service.methods:
                self.assertIn(f"rpc {method.name} ( ", said)
        self.assertIn("// Whether no key has a value", self.grpcurl("describe", f"{READER}.IsEmpty"))

    def test_describe_shows_every_message_and_field(self):
        for message in MESSAGES:
            said = self.grpcurl("describe", message.full_name)
            for field in message.fields:
                self.assertRegex(said, rf"\b{field.name} = {field.number}\b")

    def test_every_method_is_called_and_answers(self):
        for method, requests, wanted in CALLS:
            with self.subTest(method=method):
                self.assertEqual(self.call(method, requests), wanted)
        *_, last = self.call(COMPACT, [{}])
        self.assertTrue(last["done"])
        self.assertEqual(self.call(READER + "/Len", [{}]), [{"len": "2"}])
        called = {method for method, _, _ in CALLS} | STREAMS_WITHOUT_END | {COMPACT}
        self.assertEqual(called, {full(method) for service in SERVICES.values() for method in service.methods})

    def test_a_watch_is_told_at_once_and_stays(self):
        watch = subprocess.Popen(self.command(HEALTH + "/Watch", options=("-d", "{}")), text=True,
                                 stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        self.addCleanup(watch.stdout.close)
        said = ""
        while "}" not in said:
            line = watch.stdout.readline()
            self.assertTrue(line, said)
            said += line
        self.assertEqual(documents(said), [{"status": "SERVING"}])
        self.assertIsNone(watch.poll())
        watch.terminate()
        watch.wait(DEADLINE_S)

    def test_a_refusal_is_shown_with_its_reason(self):
        said = self.call(READER + "/ReadStream", [{}], status=STATUS + 3)
        self.assertIn("Code: InvalidArgument", said)
        self.assertIn("Message: neither key nor key_hash is set", said)
        info = re.search(r'"@type": "type.googleapis.com/google.rpc.ErrorInfo",\s*"@value": "([^"]+)"', said)
        self.assertIn(b"NO_SELECTOR", base64.b64decode(info[1]))


if __name__ == "__main__":
    unittest.main()
