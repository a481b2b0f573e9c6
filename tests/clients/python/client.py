"""Reads a store by the contract and compares it with the table: client.py ADDRESS TABLE"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import grpc
import xxhash

from rdrive.v1 import reader_pb2, reader_pb2_grpc

DEADLINE_S = 30  # of each call


class Row(NamedTuple):
    """A key, and what the store holds under it. `value` is None where the key is absent."""

    name: str
    key: bytes
    hash: int
    value: bytes | None


@dataclass
class Stream:
    """What one batch stream brought: the values by index, None for an absent key."""

    values: list[bytes | None]
    messages: int = 0
    fragments: int = 0


def read_table(path):
    def plain(written):
        return None if written is None else bytes.fromhex(written["hex"]) * written.get("times", 1)

    rows = json.loads(Path(path).read_text(encoding="utf-8"))["keys"]
    return [Row(row["name"], plain(row["key"]), int(row["hash"], 16), plain(row["value"])) for row in rows]


def read(reader, key):
    answer = reader.Read(reader_pb2.ReadRequest(key=key), timeout=DEADLINE_S)
    return answer.entry.payload if answer.HasField("entry") else None


def read_hashes(reader, hashes):
    stream = Stream([])
    parts = bytearray()  # of the value whose fragments are arriving
    request = reader_pb2.BatchReadHashedKeysRequest(key_hashes=hashes)
    for message in reader.BatchReadHashedKeys(request, timeout=DEADLINE_S):
        stream.messages += 1
        for item in message.items:
            if item.index != len(stream.values):
                raise ValueError(f"index {item.index} comes where {len(stream.values)} is due")
            match item.WhichOneof("outcome"):
                case "absent":
                    stream.values.append(None)
                case "entry":
                    stream.values.append(item.entry.payload)
                case "fragment":
                    if item.fragment.payload_offset != len(parts):
                        raise ValueError(f"a fragment begins at {item.fragment.payload_offset}, not {len(parts)}")
                    stream.fragments += 1
                    parts += item.fragment.data
                    if len(parts) == item.fragment.payload_size:
                        stream.values.append(bytes(parts))
                        parts.clear()
                case "error":
                    raise ValueError(f"item {item.index}: {item.error.reason}: {item.error.message}")
                case _:
                    raise ValueError(f"item {item.index}: an outcome that this client doesn't know")
    if parts:
        raise ValueError("the stream ends in the middle of a value")
    return stream


def show(value):
    return "absent" if value is None else f"{len(value)} bytes"


def check(reader, rows):
    """What is wrong, and what was seen."""
    wrong = []
    for row in rows:
        made = xxhash.xxh3_64_intdigest(row.key)
        if made != row.hash:
            wrong.append(f"{row.name}: hashed to {made:016x}, not {row.hash:016x}")
        value = read(reader, row.key)
        if value != row.value:
            wrong.append(f"{row.name}: Read gives {show(value)}, not {show(row.value)}")

    stream = read_hashes(reader, [xxhash.xxh3_64_intdigest(row.key) for row in rows])
    if len(stream.values) != len(rows):
        wrong.append(f"BatchReadHashedKeys answers {len(stream.values)} keys of {len(rows)}")
    for row, value in zip(rows, stream.values):
        if value != row.value:
            wrong.append(f"{row.name}: BatchReadHashedKeys gives {show(value)}, not {show(row.value)}")
    return wrong, (f"{len(rows)} keys hashed and read; one stream of {stream.messages} messages, "
                   f"{stream.fragments} fragments among them")


def main(address, table):
    with grpc.insecure_channel(address) as channel:
        wrong, seen = check(reader_pb2_grpc.DataStoreReaderServiceStub(channel), read_table(table))
    for each in wrong:
        print(each, file=sys.stderr)
    if not wrong:
        print("ok:", seen)
    return 1 if wrong else 0


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
