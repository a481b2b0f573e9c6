"""HTTP/2 as hostile clients speak it: frames written by hand, so that nothing is refused before it is sent.

A Peer is one connection. What it is sent it reads only when asked to, and of what a client owes the server (to
acknowledge settings, answer pings, open windows) it does nothing by itself.
"""

import socket
import struct

import hpack

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED = 1, 1, 4, 8
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = range(1, 6)
CANCEL = 8
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
WINDOW_MAX = (1 << 31) - 1
DATA_MAX = 16384  # of one frame, before the server allows more


def frame(kind, flags=0, stream=0, payload=b"", length=None):
    """One frame; `length` may lie."""
    size = len(payload) if length is None else length
    return size.to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def settings(values=()):
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", name, value) for name, value in dict(values).items()))


def window(stream, more):
    return frame(WINDOW_UPDATE, 0, stream, more.to_bytes(4, "big"))


def reset(stream, why=CANCEL):
    return frame(RST_STREAM, 0, stream, why.to_bytes(4, "big"))


def ping(payload=bytes(8)):
    return frame(PING, 0, 0, payload)


def literal(name, value):
    """A header that says all itself: no table, no Huffman code."""
    return b"\0" + integer(len(name), 7) + name + integer(len(value), 7) + value


def integer(value, bits):
    """HPACK's integer, of a byte whose upper bits are 0."""
    most = (1 << bits) - 1
    if value < most:
        return bytes([value])
    out, value = bytearray([most]), value - most
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out) + bytes([value])


def fields(path, extra=()):
    """The header block of a gRPC call."""
    plain = {b":method": b"POST", b":scheme": b"http", b":path": path.encode(), b":authority": b"x",
             b"te": b"trailers", b"content-type": b"application/grpc"}
    return b"".join(literal(name, value) for name, value in [*plain.items(), *extra])


def message(payload, compressed=False, length=None):
    """A message as gRPC frames it; `length` may lie."""
    size = len(payload) if length is None else length
    return bytes([compressed]) + size.to_bytes(4, "big") + payload


def data(stream, payload, end=True):
    """DATA frames that carry `payload`."""
    pieces = [payload[at:at + DATA_MAX] for at in range(0, len(payload), DATA_MAX)] or [b""]
    return b"".join(frame(DATA, END_STREAM if end and k == len(pieces) - 1 else 0, stream, piece)
                    for k, piece in enumerate(pieces))


def call(stream, path, request=None, extra=()):
    """A whole call, or, without a request, only its headers."""
    head = frame(HEADERS, END_HEADERS, stream, fields(path, extra))
    return head if request is None else head + data(stream, message(request))


class Ended(Exception):
    """The server has closed the connection."""


class Peer:
    """A connection; `hello` False: not even the preface is sent. `settings` are ours."""

    def __init__(self, address, hello=True, options=(), timeout=60, receive_buffer=None):
        if address.startswith("unix:"):
            self.socket = socket.socket(socket.AF_UNIX)
            where = address.removeprefix("unix:")
        else:
            self.socket = socket.socket()
            host, port = address.rsplit(":", 1)
            where = (host, int(port))
        self.socket.settimeout(timeout)
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.connect(where)
        self.received = b""
        self.decoder = hpack.Decoder()
        if hello:
            self.send(PREFACE, settings(options))

    def send(self, *pieces):
        """Returns whether the server still took it."""
        try:
            self.socket.sendall(b"".join(pieces))
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def _take(self, size):
        while len(self.received) < size:
            try:
                more = self.socket.recv(1 << 16)
            except ConnectionResetError:
                more = b""
            if not more:
                raise Ended
            self.received += more
        taken, self.received = self.received[:size], self.received[size:]
        return taken

    def next(self):
        """The next frame: kind, flags, stream, payload."""
        head = self._take(9)
        return head[3], head[4], int.from_bytes(head[5:], "big"), self._take(int.from_bytes(head[:3], "big"))

    def frames(self):
        """All frames until the server closes."""
        while True:
            try:
                yield self.next()
            except Ended:
                return

    def until(self, kind, flags=0, stream=None):
        """Read until a frame of `kind` with `flags`; returns its payload."""
        while True:
            got, having, of, payload = self.next()
            if got == kind and having & flags == flags and stream in (None, of):
                return payload

    def statuses(self, streams):
        """Read until these calls have ended; the gRPC status of each as a number, or None where it was reset."""
        ends = {}
        while not ends.keys() >= set(streams):
            kind, _, of, payload = self.next()
            headers = dict(self.decoder.decode(payload)) if kind == HEADERS else {}
            if "grpc-status" in headers:
                ends[of] = int(headers["grpc-status"])
            elif kind == RST_STREAM:
                ends.setdefault(of, None)
        return [ends[stream] for stream in streams]

    def status(self, stream):
        return self.statuses([stream])[0]

    def settle(self, mark=b"answered"):
        """Wait until the server has dealt with all that was sent: it answers a ping that came last."""
        self.send(ping(mark))
        while self.until(PING, ACK) != mark:
            pass

    def upload(self, stream, payload, end=True):
        """Send `payload` as fast as the server's windows allow. Returns False where the call ended before."""
        rooms = {0: 65535, stream: 65535}
        initial, sent = 65535, 0
        while sent < len(payload):
            size = min(DATA_MAX, len(payload) - sent, *rooms.values())
            if size > 0:
                last = end and sent + size == len(payload)
                self.send(frame(DATA, END_STREAM if last else 0, stream, payload[sent:sent + size]))
                sent += size
                for of in rooms:
                    rooms[of] -= size
                continue
            kind, flags, of, body = self.next()
            if kind == WINDOW_UPDATE and of in rooms:
                rooms[of] += int.from_bytes(body, "big")
            elif kind == SETTINGS and not flags & ACK:
                values = dict(struct.iter_unpack(">HI", body))
                rooms[stream] += values.get(INITIAL_WINDOW_SIZE, initial) - initial
                initial = values.get(INITIAL_WINDOW_SIZE, initial)
            elif kind in (HEADERS, RST_STREAM) and of == stream:
                return False
        return True

    def closed(self):
        """Wait for the server to close."""
        for _ in self.frames():
            pass

    def close(self, abruptly=False):
        """`abruptly`: by a reset."""
        if abruptly:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
