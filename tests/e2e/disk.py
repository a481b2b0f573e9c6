"""A disk that a test can slow down, stop and break: see slow_disk.c, the half of it that a daemon has preloaded."""

import mmap
import os
import struct
from pathlib import Path

from support import eventually

WORDS = ("syncs", "hold_syncs", "held_syncs", "sync_error", "hold_copies", "held_copies", "append_error")


class Disk:
    def __init__(self, folder):
        path = Path(folder) / "disk"
        path.write_bytes(bytes(4096))
        with path.open("r+b") as file:
            self.words = mmap.mmap(file.fileno(), 4096)
        self.env = {"LD_PRELOAD": os.environ["RDRIVE_SLOW_DISK_LIBRARY"], "RDRIVE_SLOW_DISK": str(path),
                    "ASAN_OPTIONS": "verify_asan_link_order=0"}

    def get(self, word):
        return struct.unpack_from("I", self.words, 4 * WORDS.index(word))[0]

    def set(self, word, value):
        struct.pack_into("I", self.words, 4 * WORDS.index(word), value)

    def hold(self, what):
        """`what`, "syncs" or "copies", comes to a halt."""
        self.set(f"hold_{what}", 1)

    def await_held(self, what, count=1):
        eventually(lambda: self.get(f"held_{what}") >= count, f"{count} {what} wait")

    def release(self, what):
        self.set(f"hold_{what}", 0)
