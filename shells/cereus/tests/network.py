"""A coordinator and a provider as child processes, for the scripts beside this file.

The binary is named by CEREUS_BIN, the model folder by CEREUS_MODEL.
"""

import atexit
import json
import os
import pathlib
import queue
import signal
import subprocess
import threading
import time
import urllib.request

WAIT_S = 120


class Failure(Exception):
    """Something is not as it must be; the text says what."""


def binary():
    path = os.environ.get("CEREUS_BIN")
    if not path or not os.path.isfile(path):
        raise Failure("CEREUS_BIN must name the built binary, as `cargo xtask test sdk` does")
    return path


def model_folder():
    """The real model, or None where there is none: the echo backend stands in."""
    path = os.environ.get("CEREUS_MODEL")
    return path if path and os.path.isfile(os.path.join(path, "config.json")) else None


def make_key(data, account, usd=None):
    command = [binary(), "key", "create", "--data", str(data), "--account", account, "--quiet"]
    if usd is not None:
        command += ["--credit", usd]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


RUNNING = []


@atexit.register
def _kill_what_runs():
    """A script that failed leaves nobody behind."""
    for process in RUNNING:
        if process.is_running():
            process.kill()


class Process:
    """One child. What it says on standard output is read line by line."""

    def __init__(self, name, folder, args):
        self.name = name
        self.log_path = pathlib.Path(folder) / f"{name}.log"
        self.log = open(self.log_path, "ab")
        self.child = subprocess.Popen(
            [binary(), name, *args], stdout=subprocess.PIPE, stderr=self.log, text=True
        )
        RUNNING.append(self)
        self.lines = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.child.stdout:
            self.lines.put(line.rstrip("\n"))
        self.lines.put(None)

    def said(self, word, wait_s=WAIT_S):
        """The rest of the next line that begins with `word`."""
        until = time.monotonic() + wait_s
        while True:
            try:
                line = self.lines.get(timeout=max(0.01, until - time.monotonic()))
            except queue.Empty:
                raise Failure(f"the {self.name} did not say `{word}`\n{self.tail()}") from None
            if line is None:
                raise Failure(f"the {self.name} ended early\n{self.tail()}")
            if line.startswith(word):
                return line[len(word):].strip()

    def tail(self):
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-15:])

    def kill(self):
        self.child.send_signal(signal.SIGKILL)
        self.child.wait()
        self.log.close()

    def end(self):
        """SIGTERM; it must end well."""
        self.child.send_signal(signal.SIGTERM)
        try:
            status = self.child.wait(timeout=WAIT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Failure(f"the {self.name} did not end after SIGTERM\n{self.tail()}") from None
        self.log.close()
        if status != 0:
            raise Failure(f"the {self.name} ended with status {status}\n{self.tail()}")

    def is_running(self):
        return self.child.poll() is None


def coordinator(folder, data, models, port=0, args=()):
    """Returns the process and its address once it listens."""
    words = ["--listen", f"127.0.0.1:{port}", "--data", str(data), *args]
    for model in models:
        words += ["--model", model]
    process = Process("coordinator", folder, words)
    return process, process.said("listening on ")


def provider(folder, address, data, model_id, model=None, args=()):
    """Returns the process; `await_provider` waits until it serves."""
    words = ["--coordinator", address, "--data", str(data), "--model-id", model_id, *args]
    words += ["--model", model] if model else ["--echo"]
    # A tiny model, on whatever machine runs the tests.
    words += ["--memory-reserve-gb", "0"]
    os.environ.setdefault("CEREUS_ACTIVATION_RESERVE_GB", "0.5")
    return Process("provider", folder, words)


def await_provider(process, address):
    """Returns when the coordinator routes to the machine."""
    process.said("joined")
    process.said("challenged")
    until = time.monotonic() + WAIT_S
    while not get(address, "/health")["providers_verified"]:
        if time.monotonic() > until:
            raise Failure(f"the machine was not verified\n{process.tail()}")
        time.sleep(0.01)


def get(address, path, key=None):
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    request = urllib.request.Request(address + path, headers=headers)
    with urllib.request.urlopen(request, timeout=WAIT_S) as reply:
        return json.load(reply)
