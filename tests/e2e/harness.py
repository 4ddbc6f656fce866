"""What the end-to-end tests share: the server as a user starts it, strangers' programs, and waiting for what must come.

Nothing here sleeps for a fixed time: `until` waits for the event, with a deadline and the reason in its complaint.
"""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CACHE = ROOT / ".cache"
KAFKA_TOOL = ROOT / "tests" / "servers" / "kafka"
# The ports of an unconfigured server: scripts that nobody changed connect to them.
STANDARD_PORTS = {1883: "MQTT", 8883: "MQTT over TLS", 8083: "MQTT over WebSocket", 8084: "MQTT over secure WebSocket",
                  9092: "Kafka", 18083: "HTTP"}
KAFKA = "127.0.0.1:9092"
SECONDS = 30


class Failure(AssertionError):
    """A test's finding, with what was seen."""


def check(condition, text):
    if not condition:
        raise Failure(text)


def until(what, done, seconds=SECONDS):
    """The first true value of done(), or a Failure that says what did not happen and what done() said last."""
    deadline = time.monotonic() + seconds
    while True:
        value = done()
        if value:
            return value
        if time.monotonic() > deadline:
            raise Failure(f"after {seconds} s still not: {what}; last seen: {value!r}")
        time.sleep(0.02)


def python(name):
    """The interpreter of a virtual environment that ./test made."""
    return str(CACHE / f"venv-{name}" / "bin" / "python")


def taken_ports():
    taken = []
    for port, name in STANDARD_PORTS.items():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                taken.append(f"{port} ({name})")
    return taken


class Run:
    """A stranger's program whose output is collected line by line while it runs."""

    def __init__(self, command, stdin=None, cwd=None, env=None):
        self.command = [str(word) for word in command]
        self.lines = []
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", cwd=cwd,
            env={**os.environ, **(env or {}), "PYTHONUNBUFFERED": "1"})
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        if stdin is not None:
            self.process.stdin.write(stdin)
            self.process.stdin.close()

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    def text(self):
        return "\n".join(self.lines)

    def wait_for(self, words, times=1, seconds=SECONDS):
        """Until this many of its lines contain these words."""
        def enough():
            found = [line for line in self.lines if words in line]
            if len(found) < times and self.process.poll() is not None:
                self.reader.join(5)
                found = [line for line in self.lines if words in line]
                check(len(found) >= times, f"{self.command} ended without {times} x {words!r}:\n{self.text()}")
            return found if len(found) >= times else None
        try:
            return until(f"{times} x {words!r}", enough, seconds)
        except Failure as failure:
            raise Failure(f"{self.command}: {failure}\n{self.text()}") from None

    def end(self, seconds=SECONDS):
        """Its output, once it has ended with 0."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Failure(f"{self.command} still runs after {seconds} s:\n{self.text()}") from None
        self.reader.join(5)
        check(code == 0, f"{self.command} ended with {code}:\n{self.text()}")
        return self.text()

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.reader.join(5)


def output(*command, stdin=None, seconds=60, env=None):
    """Standard output alone, of a program that must end with 0."""
    command = [str(word) for word in command]
    try:
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=seconds,
                              env={**os.environ, **(env or {})})
    except subprocess.TimeoutExpired as late:
        raise Failure(f"{command} still runs after {seconds} s:\n{late.stdout}\n{late.stderr}") from None
    check(done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return done.stdout


class Server:
    """Headwater on its standard ports, as `headwater` without options starts, but for the folder."""

    def __init__(self, binary, folder):
        self.binary = binary
        self.folder = pathlib.Path(folder)
        self.data = self.folder / "data"
        self.stderr_path = self.folder / "stderr.log"
        self.process = None

    def start(self, *options):
        with open(self.stderr_path, "ab") as stderr:
            self.process = subprocess.Popen([self.binary, "--data-dir", str(self.data), *options],
                                            stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr)
        until("/readyz answers 200", self._is_ready)
        return self

    def _is_ready(self):
        check(self.process.poll() is None, f"the server ended with {self.process.returncode}:\n{self.said()}")
        try:
            with urllib.request.urlopen("http://127.0.0.1:18083/readyz", timeout=1) as answer:
                return answer.status == 200
        except OSError:
            return False

    def said(self):
        return self.stderr_path.read_text(errors="replace")[-4000:]

    def stop(self):
        """SIGTERM: it must end with 0 within ten seconds, clients or not."""
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Failure(f"10 s after SIGTERM the server still runs:\n{self.said()}") from None
        check(code == 0, f"after SIGTERM the server ended with {code}:\n{self.said()}")

    def kill(self):
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def verb(self, *words):
        return output(self.binary, *words, "--data-dir", self.data)


@contextlib.contextmanager
def server(binary, *options):
    folder = tempfile.mkdtemp(prefix="headwater-e2e-")
    running = Server(binary, folder)
    try:
        yield running.start(*options)
        if running.process.poll() is None:
            running.stop()
    finally:
        running.kill()
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def running(*command, **how):
    run = Run(command, **how)
    try:
        yield run
    finally:
        run.kill()


def records(topic, *options):
    """All records of a Kafka topic by kcat: dictionaries with payload, key, partition, offset, headers."""
    text = output("kcat", "-q", "-b", KAFKA, "-C", "-t", topic, "-e", "-J", *options)
    found = [json.loads(line) for line in text.splitlines()]
    for record in found:
        pairs = record.get("headers") or []
        record["headers"] = dict(zip(pairs[0::2], pairs[1::2]))
    return found
