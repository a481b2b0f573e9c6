"""A client that believes nothing: how its calls may end, and what is counted of them."""

import collections
import random
import sys
import threading
from pathlib import Path

import grpc

from oracle import Wrong, must

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "e2e"))
from support import Code, fields_of, reader_pb2_grpc, writer_pb2_grpc  # noqa: E402

HANGS_S = 60  # what takes this long hangs
OPTIONS = {"grpc.use_local_subchannel_pool": 1, "grpc.max_receive_message_length": -1, "grpc.enable_retries": 0,
           "grpc.initial_reconnect_backoff_ms": 50, "grpc.min_reconnect_backoff_ms": 50,
           "grpc.max_reconnect_backoff_ms": 500}


def refused(error):
    """Whether a failed call brought a reason of the server's, which says that nothing was done."""
    details = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin")
    return details is not None and b"rdrive" in dict(fields_of(details)).get(3, b"")


class Process:
    """What the actors of one process share."""

    def __init__(self, address):
        self.address = address
        self.stopping = threading.Event()
        self.steady = threading.Event()  # there will be no restart any more
        self.kills = 0
        self.lock = threading.Lock()
        self.changed = threading.Condition()
        self.to_rest, self.resting = False, 0

    def rest(self, actors):
        """Wait until so many rest."""
        with self.changed:
            self.to_rest = True
            self.changed.wait_for(lambda: self.resting == actors or self.stopping.is_set())

    def resume(self):
        with self.changed:
            self.to_rest = False
            self.changed.notify_all()

    def rest_if_told(self):
        with self.changed:
            if self.to_rest:
                self.resting += 1
                self.changed.notify_all()
                self.changed.wait_for(lambda: not self.to_rest)
                self.resting -= 1

    def complain(self, text):
        with self.lock:
            print("wrong " + text.replace("\n", " "), flush=True)
        self.stopping.set()
        self.resume()


class Actor(threading.Thread):
    """Does one turn after the other. Calls wait while there is no daemon."""

    def __init__(self, process, number):
        super().__init__(name=f"{type(self).__name__}-{number}")
        self.process, self.number = process, number
        self.dice = random.Random(self.name)
        self.calls = self.checks = 0
        self.codes = collections.Counter()
        self.code = None  # of the last call
        self.settled = False  # a call that began after the last restart was answered
        self.connect()

    def connect(self):
        self.channel = grpc.insecure_channel(self.process.address, list(OPTIONS.items()))
        self.reader = reader_pb2_grpc.DataStoreReaderServiceStub(self.channel)
        self.writer = writer_pb2_grpc.DataStoreWriterServiceStub(self.channel)

    def run(self):
        while not self.process.stopping.is_set():
            self.guarded(self.turn)
            self.process.rest_if_told()
        self.channel.close()

    def guarded(self, work):
        try:
            return work()
        except Wrong as wrong:
            return self.process.complain(f"{self.name}: {wrong}")
        except Exception as error:  # a bug of the actor's must not look like silence
            self.process.complain(f"{self.name}: {error!r}")
            raise

    def turn(self):
        raise NotImplementedError

    def verify(self):
        """After all is over and the daemon was restarted. Returns: how many keys of the actor's there are."""
        return 0

    def wait(self, seconds):
        self.process.stopping.wait(seconds)

    # -- how a call ends

    def began(self):
        """What is to be told to `ended` of a call that begins now: whether it is after the last restart, surely."""
        return self.process.steady.is_set(), self.settled

    def ended(self, code, error=None, impatient=False, also=(), began=(False, False)):
        """
        Note how a call ended. Returns: True: answered; False: the server refused it, and did nothing; None: who knows.
        """
        steady, settled = began
        self.calls += 1
        self.code = code
        self.codes[code.name] += 1
        if code == Code.OK or code in also:
            self.settled = self.settled or steady
            return code == Code.OK
        if code == Code.UNAVAILABLE and not settled:
            return False if error is not None and refused(error) else None
        must(impatient and code in (Code.CANCELLED, Code.DEADLINE_EXCEEDED), "a call ended", code.name,
             error.details() if error else "", "(impatient)" if impatient else "")
        return None

    def ask(self, method, request, impatience=0.0, also=()):
        """A unary call, given up at a random moment with a probability of `impatience`. Returns: (answer, ended())."""
        impatient = self.dice.random() < impatience
        wait = 10 ** self.dice.uniform(-4, -2)
        cancel = impatient and self.dice.random() < 0.5
        began = self.began()
        try:
            future = method.future(request, timeout=wait if impatient and not cancel else HANGS_S, wait_for_ready=True)
            if cancel:
                threading.Event().wait(wait)
                future.cancel()
            answer = future.result()
        except grpc.FutureCancelledError:
            return None, self.ended(Code.CANCELLED, impatient=impatient)
        except grpc.RpcError as error:
            return None, self.ended(error.code(), error, impatient, also, began)
        return answer, self.ended(Code.OK, began=began)

    def stream(self, method, request, impatience=0.0, take=None):
        """
        A stream's messages, given up after some with a probability of `impatience`; `take` looks at each as it comes.
        Returns: (messages, ended()).
        """
        most = int(10 ** self.dice.uniform(0, 1.5)) if self.dice.random() < impatience else None
        messages = []
        began = self.began()
        call = method(request, timeout=HANGS_S, wait_for_ready=True)
        try:
            for message in call:
                if take is not None:
                    take(message)
                else:
                    messages.append(message)
                if most is not None and len(messages) >= most:
                    call.cancel()
        except grpc.RpcError as error:
            return messages, self.ended(error.code(), error, most is not None, began=began)
        return messages, self.ended(Code.OK, began=began)
