"""Every store the Rust crate wrote, read back entirely through the daemon: each reader method, each key."""

import hashlib
import shutil
import tempfile
import unittest
from pathlib import Path

from support import Code, Daemon, DaemonTest, entry_pb2, manifests, reader_pb2

served = []  # (name, manifest, stub) of each fixture
folder = tempfile.TemporaryDirectory(prefix="rdrive-e2e-")
daemons = []


def setUpModule():
    for path, manifest in manifests():
        copy = Path(folder.name) / Path(path).name
        shutil.copy(path, copy)
        daemons.append(Daemon(copy))
        served.append((copy.name, manifest, daemons[-1].reader_stub()))


def tearDownModule():
    for daemon in daemons:
        daemon.stop()
    for path, _ in manifests():
        assert (Path(folder.name) / Path(path).name).read_bytes() == Path(path).read_bytes(), path
    folder.cleanup()


def key_of(row):
    return bytes.fromhex(row["key_hex"]) if row["key_hex"] is not None else None


def hash_of(row):
    return int(row["key_hash"], 16)


def is_live(row):
    return row["state"] == "live"


def metadata_of(row):
    return entry_pb2.EntryMetadata(key_hash=hash_of(row), prev_offset=row["prev_offset"], checksum=int(row["crc"], 16))


def of_each_fixture(test):
    """The test is run with the manifest and the daemon of every fixture."""
    def run(self):
        self.assertGreaterEqual(len(served), 20)
        for name, manifest, stub in served:
            with self.subTest(fixture=name):
                test(self, manifest, stub)
    return run


class Fixtures(DaemonTest):
    def keyed(self, manifest):
        return [row for row in manifest["keys"] if row["key_hex"] is not None]

    def assert_payload(self, row, payload):
        self.assertEqual(len(payload), row["payload_len"])
        if "payload_hex" in row:
            self.assertEqual(payload.hex(), row["payload_hex"])
        else:
            self.assertEqual(hashlib.sha256(payload).hexdigest(), row["payload_sha256"])

    def assert_entry(self, row, answer):
        """The answer's entry is the row's, or, where the row's key is not live, there is none."""
        self.assertEqual(answer.HasField("entry"), is_live(row), row["key_hash"])
        if is_live(row):
            self.assert_payload(row, answer.entry.payload)
            self.assertEqual(answer.entry.metadata, metadata_of(row))

    def assert_items(self, rows, items, metadata=True):
        """The items answer `rows`, one by one."""
        self.assertEqual([item.index for item in items], list(range(len(rows))))
        for row, item in zip(rows, items):
            self.assertEqual(item.WhichOneof("outcome"), "entry" if is_live(row) else "absent", row["key_hash"])
            if is_live(row):
                self.assert_payload(row, item.entry.payload)
                self.assertEqual(item.entry.HasField("metadata"), metadata)
                if metadata:
                    self.assertEqual(item.entry.metadata, metadata_of(row))

    def items(self, stream):
        return [item for message in stream for item in message.items]

    @of_each_fixture
    def test_exists_says_what_the_manifest_says(self, manifest, stub):
        for row in self.keyed(manifest):
            self.assertEqual(stub.Exists(reader_pb2.ExistsRequest(key=key_of(row))).exists, is_live(row))
        for row in manifest["keys"]:
            answer = stub.ExistsWithKeyHash(reader_pb2.ExistsWithKeyHashRequest(key_hash=hash_of(row)))
            self.assertEqual(answer.exists, is_live(row))

    @of_each_fixture
    def test_read_gives_payload_and_metadata_of_each_live_key_and_nothing_of_others(self, manifest, stub):
        for row in self.keyed(manifest):
            self.assert_entry(row, stub.Read(reader_pb2.ReadRequest(key=key_of(row))))
        for row in manifest["keys"]:
            request = reader_pb2.ReadWithKeyHashRequest(key_hash=hash_of(row))
            self.assert_entry(row, stub.ReadWithKeyHash(request))

    @of_each_fixture
    def test_read_metadata_is_that_of_read_without_payload(self, manifest, stub):
        for row in self.keyed(manifest):
            answer = stub.ReadMetadata(reader_pb2.ReadMetadataRequest(key=key_of(row)))
            expected = reader_pb2.ReadMetadataResponse(metadata=metadata_of(row)) if is_live(row) else \
                reader_pb2.ReadMetadataResponse()
            self.assertEqual(answer, expected)

    @of_each_fixture
    def test_the_last_entry_is_the_newest_one_deletions_included(self, manifest, stub):
        answer, last = stub.ReadLastEntry(reader_pb2.ReadLastEntryRequest()), manifest["last_entry"]
        self.assertEqual(answer.HasField("entry"), last is not None)
        if last is None:
            return
        meta = answer.entry.metadata
        self.assertEqual((f"{meta.key_hash:016x}", meta.prev_offset, f"{meta.checksum:08x}", meta.tombstone),
                         (last["key_hash"], last["prev_offset"], last["crc"], last["is_tombstone"]))
        self.assertEqual(len(answer.entry.payload),
                         0 if last["is_tombstone"] else last["end"] - last["start"])
        if not last["is_tombstone"]:
            row = next(row for row in manifest["keys"] if row["key_hash"] == last["key_hash"])
            self.assert_payload(row, answer.entry.payload)

    @of_each_fixture
    def test_len_is_empty_and_file_size_are_the_manifests(self, manifest, stub):
        self.assertEqual(stub.Len(reader_pb2.LenRequest()).len, manifest["live_keys"])
        self.assertEqual(stub.IsEmpty(reader_pb2.IsEmptyRequest()).is_empty, manifest["live_keys"] == 0)
        self.assertEqual(stub.FileSize(reader_pb2.FileSizeRequest()).file_size, manifest["file_size"])

    @of_each_fixture
    def test_store_info_counts_what_the_file_holds(self, manifest, stub):
        info = stub.GetStoreInfo(reader_pb2.GetStoreInfoRequest())
        self.assertEqual((info.live_keys, info.entries, info.tail_offset, info.file_size, info.damaged_entries),
                         (manifest["live_keys"], len(manifest["entries_in_file_order"]), manifest["tail"],
                          manifest["file_size"], 0))
        self.assertEqual((info.writable, info.atomic_batches, len(info.damaged_ranges)), (False, True, 0))
        self.assertRegex(info.server_version, r"^\d+\.\d+\.\d+$")
        self.assertTrue(info.engine)

    @of_each_fixture
    def test_a_batch_read_answers_each_key_in_its_order(self, manifest, stub):
        rows = self.keyed(manifest) + self.keyed(manifest)[:3]
        for omit in (False, True):
            request = reader_pb2.BatchReadRequest(keys=[key_of(row) for row in rows], omit_metadata=omit)
            self.assert_items(rows, stub.BatchRead(request).items, not omit)
            request = reader_pb2.BatchReadStreamRequest(keys=[key_of(row) for row in rows], omit_metadata=omit)
            self.assert_items(rows, self.whole(self.items(stub.BatchReadStream(request))), not omit)

    def whole(self, items):
        """Fragments put together, so that they can be looked at as entries."""
        out = []
        for item in items:
            if item.WhichOneof("outcome") != "fragment":
                out.append(item)
                continue
            fragment = item.fragment
            if fragment.payload_offset == 0:
                whole = entry_pb2.BatchReadItem(index=item.index, entry=entry_pb2.Entry())
                if fragment.HasField("metadata"):
                    whole.entry.metadata.CopyFrom(fragment.metadata)
                out.append(whole)
            self.assertEqual((out[-1].index, len(out[-1].entry.payload)), (item.index, fragment.payload_offset))
            out[-1].entry.payload += fragment.data
        return out

    @of_each_fixture
    def test_a_hashed_batch_answers_with_keys_and_without(self, manifest, stub):
        for with_keys in (False, True):
            rows = self.keyed(manifest) if with_keys else manifest["keys"]
            request = reader_pb2.BatchReadHashedKeysRequest(
                key_hashes=[hash_of(row) for row in rows], keys=[key_of(row) for row in rows] if with_keys else [])
            self.assert_items(rows, self.whole(self.items(stub.BatchReadHashedKeys(request))))

    @of_each_fixture
    def test_a_hash_beside_a_key_that_is_not_its_own_is_absent(self, manifest, stub):
        rows = self.keyed(manifest)
        keys = [b"not " + key_of(row) for row in rows]
        if rows:
            keys[0] = key_of(rows[0])
        request = reader_pb2.BatchReadHashedKeysRequest(key_hashes=[hash_of(row) for row in rows], keys=keys)
        expected = [row if i == 0 else {**row, "state": "absent"} for i, row in enumerate(rows)]
        self.assert_items(expected, self.whole(self.items(stub.BatchReadHashedKeys(request))))

    def fragments(self, stub, **request):
        answer = list(stub.ReadStream(reader_pb2.ReadStreamRequest(**request)))
        self.assertTrue(all(message.HasField("fragment") and message.fragment.data for message in answer))
        return [message.fragment for message in answer]

    @of_each_fixture
    def test_a_stream_of_a_key_is_its_payload_and_of_no_key_nothing(self, manifest, stub):
        for row in manifest["keys"]:
            for selector in [{"key_hash": hash_of(row)}, {"key": key_of(row)}]:
                if selector.get("key", b"") is None:
                    continue
                fragments = self.fragments(stub, **selector)
                self.assertEqual(bool(fragments), is_live(row))
                if not is_live(row):
                    continue
                self.assert_payload(row, b"".join(fragment.data for fragment in fragments))
                self.assertEqual(fragments[0].metadata, metadata_of(row))
                at = 0
                for fragment in fragments:
                    self.assertEqual((fragment.payload_offset, fragment.payload_size), (at, row["payload_len"]))
                    self.assertEqual(fragment.HasField("metadata"), at == 0)
                    at += len(fragment.data)

    @of_each_fixture
    def test_a_range_is_the_bytes_between_offset_and_limit(self, manifest, stub):
        for row in filter(is_live, manifest["keys"][-20:]):
            key_hash, size = hash_of(row), row["payload_len"]
            whole = b"".join(fragment.data for fragment in self.fragments(stub, key_hash=key_hash))
            for offset, limit in {(0, 1), (size // 2, 0), (size // 3, size // 3), (size - 1, 1), (1, size), (0, size),
                                  (0, size + 1), (size // 2, (1 << 64) - 1)}:
                got = self.fragments(stub, key_hash=key_hash, offset=offset, limit=limit)
                end = size if limit == 0 else min(size, offset + limit)
                self.assertEqual(b"".join(fragment.data for fragment in got), whole[offset:end], (offset, limit))
                self.assertEqual(got[0].payload_offset if got else offset, offset)
                self.assertEqual([fragment.HasField("metadata") for fragment in got][:1], [True] * bool(got))

    @of_each_fixture
    def test_an_offset_at_the_end_is_an_empty_stream_and_one_beyond_is_out_of_range(self, manifest, stub):
        for row in filter(is_live, manifest["keys"][-20:]):
            size = row["payload_len"]
            self.assertEqual(self.fragments(stub, key_hash=hash_of(row), offset=size), [])
            for offset in (size + 1, (1 << 64) - 1):
                request = reader_pb2.ReadStreamRequest(key_hash=hash_of(row), offset=offset)
                self.fails(Code.OUT_OF_RANGE, lambda: stub.ReadStream(request), str(offset), str(size),
                           reason="OFFSET")

    @of_each_fixture
    def test_a_key_never_written_is_ok_with_nothing_in_it(self, manifest, stub):
        key, key_hash = b"no fixture holds this key", 0x0123456789ABCDEF
        self.assertFalse(stub.Exists(reader_pb2.ExistsRequest(key=key)).exists)
        self.assertFalse(stub.ExistsWithKeyHash(reader_pb2.ExistsWithKeyHashRequest(key_hash=key_hash)).exists)
        self.assertFalse(stub.Read(reader_pb2.ReadRequest(key=key)).HasField("entry"))
        self.assertFalse(stub.ReadWithKeyHash(reader_pb2.ReadWithKeyHashRequest(key_hash=key_hash)).HasField("entry"))
        self.assertFalse(stub.ReadMetadata(reader_pb2.ReadMetadataRequest(key=key)).HasField("metadata"))
        self.assertEqual(self.fragments(stub, key=key, offset=5), [])
        item = entry_pb2.BatchReadItem(index=0, absent=entry_pb2.Absent())
        self.assertEqual(list(stub.BatchRead(reader_pb2.BatchReadRequest(keys=[key])).items), [item])
        batches = [stub.BatchReadStream(reader_pb2.BatchReadStreamRequest(keys=[key])),
                   stub.BatchReadHashedKeys(reader_pb2.BatchReadHashedKeysRequest(key_hashes=[key_hash]))]
        self.assertEqual([self.items(batch) for batch in batches], [[item], [item]])


if __name__ == "__main__":
    unittest.main()
