#!/usr/bin/env python3
"""kill -9 of the coordinator, the provider or both under a streaming load, then the books.

    CEREUS_BIN=target/release/cereus CEREUS_MODEL=engine/models/tiny python3 kill9.py --rounds 50

After each round: every consumer saw a complete answer or a clear error, no request was settled
twice, whoever saw the end of an answer was charged for it, balances and ledger agree, and nothing is
held for ever. A failing run prints the seed that repeats its choices.
"""

import argparse
import collections
import json
import pathlib
import random
import socket
import sqlite3
import sys
import tempfile
import threading
import time

import network
from network import Failure

MODEL = "tiny"
TARGETS = ("coordinator", "provider", "both")
READ_WAIT_S = 60
SETTLE_WAIT_S = 60
PROMPTS = ("What is 17 + 25?", "Spell night.", "Reverse cereus.", "What is Cereus?")


class Broken(Exception):
    """The connection failed, which is how a killed peer looks."""


class Reader:
    """HTTP/1.1 by hand: libraries are kind to bodies that were cut short, this must not be."""

    def __init__(self, sock):
        self.sock = sock
        self.buffer = b""

    def more(self):
        try:
            data = self.sock.recv(65536)
        except socket.timeout:
            raise Failure(f"a consumer heard nothing for {READ_WAIT_S} s") from None
        except OSError as error:
            raise Broken(str(error)) from None
        if not data:
            raise Broken("closed early")
        self.buffer += data

    def line(self):
        while b"\r\n" not in self.buffer:
            self.more()
        line, self.buffer = self.buffer.split(b"\r\n", 1)
        return line.decode()

    def exactly(self, size):
        while len(self.buffer) < size:
            self.more()
        data, self.buffer = self.buffer[:size], self.buffer[size:]
        return data

    def head(self):
        status = int(self.line().split(" ")[1])
        headers = {}
        while line := self.line():
            name, value = line.split(":", 1)
            headers[name.strip().lower()] = value.strip()
        return status, headers

    def body(self, headers):
        if headers.get("transfer-encoding") != "chunked":
            return self.exactly(int(headers["content-length"]))
        body = b""
        while size := int(self.line(), 16):
            body += self.exactly(size)
            self.exactly(2)
        self.line()
        return body


def ask(address, key, prompt, max_tokens):
    """How one streamed chat ended, and its id if the reply began."""
    host, port = address.removeprefix("http://").split(":")
    body = json.dumps({
        "model": MODEL, "stream": True, "stream_options": {"include_usage": True},
        "max_tokens": max_tokens, "messages": [{"role": "user", "content": prompt}],
    }).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    try:
        with socket.create_connection((host, int(port)), timeout=READ_WAIT_S) as sock:
            sock.sendall(head + body)
            reader = Reader(sock)
            status, headers = reader.head()
            request = headers.get("x-inference-job-id")
            return judge(status, reader.body(headers)), request
    except (Broken, OSError):
        # Nobody is there any more: an error that no consumer can take for an answer.
        return "connection lost", None


def judge(status, body):
    if status != 200:
        error = json.loads(body)["error"]
        if not (error["message"] and error["type"] and error["code"]):
            raise Failure(f"an error of status {status} says nothing")
        return f"status {status}"
    frames = [frame for frame in body.decode().split("\n\n") if frame]
    if not all(frame.startswith("data: ") for frame in frames):
        raise Failure("a stream with frames that are not data")
    frames = [frame.removeprefix("data: ") for frame in frames]
    is_done = frames[-1:] == ["[DONE]"]
    chunks = [json.loads(frame) for frame in frames if frame != "[DONE]"]
    if any("error" in chunk for chunk in chunks):
        if is_done:
            raise Failure("a stream with an error claims to be done")
        return "error in the stream"
    finishes = [
        choice["finish_reason"]
        for chunk in chunks for choice in chunk["choices"] if choice["finish_reason"]
    ]
    if not is_done or len(finishes) != 1 or not chunks[-1].get("usage"):
        raise Failure("a stream ended as if it were whole, and is not")
    return "complete"


class Load:
    """So many consumers, each asking again as soon as it is answered, until told to stop."""

    def __init__(self, address, key, consumers, rng):
        self.address, self.key = address, key
        self.stopping = threading.Event()
        self.lock = threading.Lock()
        self.outcomes = collections.Counter()
        self.complete = []
        self.failure = None
        seeds = [rng.random() for _ in range(consumers)]
        self.threads = [threading.Thread(target=self._consume, args=(seed,)) for seed in seeds]
        for thread in self.threads:
            thread.start()

    def _consume(self, seed):
        rng = random.Random(seed)
        try:
            while not self.stopping.is_set():
                outcome, request = ask(
                    self.address, self.key, rng.choice(PROMPTS), rng.choice((8, 24, 48))
                )
                with self.lock:
                    self.outcomes[outcome] += 1
                    if outcome == "complete":
                        self.complete.append(request)
                if outcome != "complete":
                    self.stopping.wait(0.05)
        except Exception as error:  # noqa: BLE001 - any of them fails the run
            self.failure = self.failure or error

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join(timeout=2 * READ_WAIT_S)
            if thread.is_alive():
                raise Failure("a consumer waits for ever")
        if self.failure:
            raise Failure(f"a consumer: {self.failure}")


class Network:
    """One coordinator on one data folder and one provider, restarted as they are killed."""

    def __init__(self, folder, model):
        self.folder, self.model = folder, model
        self.data = folder / "data"
        self.key = network.make_key(self.data, "load", "1000")
        self.coordinator = self.provider = None
        self.address, self.port = None, 0

    def start(self):
        if not (self.coordinator and self.coordinator.is_running()):
            self.coordinator, self.address = network.coordinator(
                self.folder, self.data, [f"{MODEL}:50000:200000:2048"], port=self.port,
                args=["--queue-wait", "5"],
            )
            self.port = int(self.address.rsplit(":", 1)[1])
        if not (self.provider and self.provider.is_running()):
            echo = [] if self.model else ["--echo-pieces", "40", "--echo-pause-ms", "5"]
            self.provider = network.provider(
                self.folder, self.address, self.folder / "machine", MODEL, model=self.model,
                args=echo,
            )
        self.await_answer()

    def await_answer(self):
        until = time.monotonic() + network.WAIT_S
        while True:
            outcome, request = ask(self.address, self.key, PROMPTS[0], 4)
            if outcome == "complete":
                return
            if time.monotonic() > until:
                raise Failure(f"no answer after a restart: {outcome}\n{self.coordinator.tail()}")
            time.sleep(0.1)

    def kill(self, target):
        # Both at once: neither sees the other go first.
        if target in ("coordinator", "both"):
            self.coordinator.kill()
        if target in ("provider", "both"):
            self.provider.kill()

    def end(self):
        self.provider.end()
        self.coordinator.end()


class Books:
    def __init__(self, data):
        self.db = sqlite3.connect(data / "cereus.sqlite", timeout=30)

    def rows(self, sql):
        return self.db.execute(sql).fetchall()

    def none(self, sql, text):
        found = self.rows(sql)
        if found:
            raise Failure(f"{text}: {found[:3]}")

    def check(self):
        """What holds at every instant, whoever was killed."""
        self.db.execute("BEGIN")
        try:
            self.none(
                "SELECT hex(request), count(*) FROM transfers WHERE kind IN ('settle', 'void') "
                "GROUP BY request HAVING count(*) > 1", "a request ended twice")
            self.none(
                "SELECT hex(request) FROM transfers WHERE kind = 'hold' "
                "GROUP BY request HAVING count(*) > 1", "a request was held twice")
            self.none(
                "SELECT hex(request) FROM transfers WHERE kind IN ('settle', 'void') AND request "
                "NOT IN (SELECT request FROM transfers WHERE kind = 'hold')", "an end of no hold")
            self.none(
                "SELECT transfer, sum(amount) FROM postings GROUP BY transfer HAVING sum(amount)",
                "a transfer does not sum to zero")
            self.none(
                "SELECT side, account, sum(amount) FROM (SELECT side, account, amount FROM balances "
                "UNION ALL SELECT side, account, -amount FROM postings) "
                "GROUP BY side, account HAVING sum(amount)", "a balance is not its postings")
            self.none(
                "SELECT hex(request) FROM transfers WHERE kind = 'settle' "
                "AND id NOT IN (SELECT transfer FROM receipts)", "a charge without a receipt")
            self.none(
                "SELECT side, account, amount FROM balances "
                "WHERE side IN ('consumer', 'held') AND amount < 0", "a balance below nothing")
        finally:
            self.db.execute("ROLLBACK")

    def await_no_holds(self):
        until = time.monotonic() + SETTLE_WAIT_S
        while held := self.rows("SELECT account, amount FROM balances WHERE side = 'held' AND amount"):
            if time.monotonic() > until:
                raise Failure(f"money is held for ever: {held}")
            time.sleep(0.05)

    def settled(self):
        found = self.rows("SELECT lower(hex(request)) FROM transfers WHERE kind = 'settle'")
        return {request for (request,) in found}

    def count(self, kind):
        return self.rows(f"SELECT count(*) FROM transfers WHERE kind = '{kind}'")[0][0]


def one_round(net, books, consumers, rng, totals):
    net.start()
    load = Load(net.address, net.key, consumers, rng)
    target = rng.choice(TARGETS)
    # From before the first token to well into the answers.
    time.sleep(rng.uniform(0.0, 1.5))
    net.kill(target)
    if rng.random() < 0.5:
        # Half the time the load meets the restart, half the time only the ruins.
        net.start()
        time.sleep(rng.uniform(0.0, 0.5))
    load.stop()
    books.check()
    net.start()
    books.await_no_holds()
    books.check()
    unpaid = {request.replace("-", "") for request in load.complete} - books.settled()
    if unpaid:
        raise Failure(f"{len(unpaid)} answers ended before their settlement was durable")
    totals[target] += 1
    totals.update(load.outcomes)
    return target, load.outcomes


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--load", type=int, default=32, help="streams at once")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--echo", action="store_true", help="the echo backend, whatever is there")
    args = parser.parse_args()
    seed = args.seed if args.seed is not None else random.SystemRandom().randrange(1 << 32)
    rng = random.Random(seed)
    model = None if args.echo else network.model_folder()
    totals = collections.Counter()
    with tempfile.TemporaryDirectory(prefix="cereus-kill9-") as folder:
        net = Network(pathlib.Path(folder), model)
        try:
            net.start()
            books = Books(net.data)
            for number in range(1, args.rounds + 1):
                target, outcomes = one_round(net, books, args.load, rng, totals)
                said = ", ".join(f"{count} {how}" for how, count in sorted(outcomes.items()))
                print(f"round {number:>3}: killed {target}: {said}", flush=True)
            net.end()
            books.check()
        except Failure as failure:
            sys.exit(f"kill9: {failure}\nrepeat with --seed {seed}")
        kills = ", ".join(f"{target} {totals.pop(target, 0)}" for target in TARGETS)
        said = ", ".join(f"{count} {how}" for how, count in sorted(totals.items()))
        print(
            f"{args.rounds} rounds (killed {kills}), {'the model' if model else 'echo'}: {said}; "
            f"{books.count('settle')} settled, {books.count('void')} voided, none twice; "
            f"balances and ledger agree (seed {seed})"
        )


if __name__ == "__main__":
    main()
