"""Headwater on free ports of loopback, for the suites: started with --ready-file, ended with SIGTERM."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time

SECONDS = 30
# The doors that a suite may need. Kafka's and HTTP's stay shut: they are no part of it.
MQTT_DOORS = ("tcp", "tls", "ws", "wss")


# In memory where that is possible: what other programs do with the disk would make these suites' short timeouts pass.
MEMORY = pathlib.Path("/dev/shm")
FOLDERS = str(MEMORY) if MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > 4 << 30 else None


class Trouble(Exception):
    """What keeps a suite from running at all."""


class Server:
    """A running server. `ports` has one entry a door that opened."""

    def __init__(self, binary, config=""):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="headwater-suites-", dir=FOLDERS))
        self.ready = self.folder / "ready.json"
        self.stderr = self.folder / "stderr.log"
        file = self.folder / "headwater.toml"
        file.write_text(config + "".join(f'\n[listeners.{door}]\nbind = "127.0.0.1:0"\n' for door in MQTT_DOORS)
                        + "".join(f"\n[listeners.{door}]\nenabled = false\n"
                                  for door in ("quic", "kafka", "http", "https")))
        with open(self.stderr, "wb") as stderr:
            self.process = subprocess.Popen(
                [binary, "-c", file, "--data-dir", self.folder / "data", "--ready-file", self.ready],
                stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr)
        self.ports = {name: int(address.rpartition(":")[2]) for name, address in self._addresses().items()}

    def _addresses(self):
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
                return json.loads(self.ready.read_text())
            if self.process.poll() is not None:
                raise Trouble(f"the server ended with {self.process.returncode}:\n{self.said()}")
            time.sleep(0.02)
        raise Trouble(f"the server was not ready after {SECONDS} s:\n{self.said()}")

    def said(self):
        return self.stderr.read_text(errors="replace")[-4000:]

    def end(self):
        """SIGTERM: it must end with 0 within ten seconds."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        code, said = self.process.returncode, self.said()
        shutil.rmtree(self.folder, ignore_errors=True)
        if code != 0:
            raise Trouble(f"the server ended with {code}:\n{said}")


@contextlib.contextmanager
def server(binary, config=""):
    running = Server(binary, config)
    try:
        yield running
    finally:
        running.end()


def suite(folder, name, inside):
    """The checkout DIR/NAME, and the commit and day it stands at."""
    checkout = pathlib.Path(folder).resolve() / name
    if not (checkout / inside).exists():
        raise Trouble(f"{checkout / inside} is missing: --suites DIR needs a checkout of {name} in DIR")
    git = ["git", "-C", str(checkout), "log", "-1", "--format=%h %cs"]
    done = subprocess.run(git, capture_output=True, text=True, env={**os.environ, "GIT_DIR": str(checkout / ".git")})
    print(f"{name} at {done.stdout.strip() or 'an unknown commit'}", flush=True)
    return checkout
