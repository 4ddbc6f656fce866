"""mosquitto's own scripts (test/broker/*.py), those that ask nothing of mosquitto but MQTT.

They start `mosquitto` out of a build tree. Here that is a folder whose `src/mosquitto` is `fake_mosquitto.py`.
"""

import concurrent.futures
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile

from headwater import FOLDERS, Trouble

HERE = pathlib.Path(__file__).resolve().parent
SECONDS = 180
AT_ONCE = 2

# Whole chapters that are about mosquitto itself.
NOT_OURS = [
    (r"06-", "tests mosquitto's bridge"),
    (r"08-(ssl|tls-psk)-bridge", "tests mosquitto's bridge"),
    (r"08-tls-psk-pub", "tests mosquitto's PSK file, and its client"),
    (r"09-", "tests mosquitto's password and ACL files and its plugin interface"),
    (r"10-", "tests mosquitto's mount points"),
    (r"14-", "tests mosquitto's dynamic security plugin"),
    (r"15-", "tests mosquitto's SQLite plugin"),
    (r"16-", "tests mosquitto's command line and configuration file"),
    (r"17-", "tests mosquitto's control topics"),
    (r"20-", "tests mosquitto's Sparkplug plugin"),
    (r"21-proxy-(bad-version|v2-bad-config)", "tests mosquitto's checks of its configuration file"),
    (r"21-proxy-v2-ssl-", "tests mosquitto's configuration: who gets in by the TLVs that say how the proxy was reached; PROXY protocol, "
                          "2.2: a receiver may pass over TLVs, and here it does"),
    (r"22-", "tests mosquitto's HTTP API"),
    (r"23-", "tests mosquitto's password and ACL files"),
]
# Single scripts that a foreign broker cannot pass, and why.
DIFFERENT = {
    "01-connect-allow-anonymous.py": "tests mosquitto's configuration: anonymous clients are refused as soon as a listener is configured",
    "01-connect-auto-id.py": "tests mosquitto's option auto_id_prefix, for each of two listeners",
    "01-connect-max-keepalive.py": "wants CONNACK 2 for a Keep Alive of 101 s; 3.1.1, 3.1.2.10: up to 65,535 s may be asked, and 2 means "
                                   "that the client identifier is not allowed",
    "01-connect-unix-socket.py": "a Unix socket, which is no transport here",
    "01-connect-zero-length-id.py": "tests mosquitto's option allow_zero_length_clientid, for each of two listeners",
    "02-subpub-qos1-message-expiry.py": "wants Packet Identifier 2; 2.2.1: any that is unused [MQTT-2.2.1-4]",
    "03-publish-qos2-reuse-mid.py": "wants the second of two messages of one identifier; until PUBREL it MUST NOT be passed on [MQTT-4.3.3-10]",
    "11-message-expiry.py": "wants Packet Identifier 2; 2.2.1: any that is unused [MQTT-2.2.1-4]",
    "12-prop-assigned-client-identifier.py": "compares the first bytes of mosquitto's CONNACK; 3.2.2.3: a Server announces its own values",
    "21-proxy-v2-local.py": "wants LOCAL refused; PROXY protocol, 2.2: the receiver must accept it and use the real addresses",
    "21-proxy-v2-long-tlv.py": "wants TLVs refused that make no sense; PROXY protocol, 2.2: a receiver may pass over them, and here it does",
}
# All that apply: fewer are a fault of the runner or of the checkout.
KNOWN = 83


def scripts(checkout):
    """What test.py of the suite runs, in its order, with the number of ports each takes."""
    text = (checkout / "test" / "broker" / "test.py").read_text()
    for count, name in re.findall(r"^ {4}\((\d+), *'\./([^']+\.py)'", text, re.M):
        if name != "msg_sequence_test.py":
            yield name, int(count)


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def run_script(checkout, binary, name, count):
    """(verdict, text): passed, failed, or why it is not ours."""
    for pattern, why in NOT_OURS:
        if re.match(pattern, name):
            return "not ours", why
    if name in DIFFERENT:
        return "not ours", DIFFERENT[name]
    root = pathlib.Path(tempfile.mkdtemp(prefix="headwater-script-", dir=FOLDERS))
    try:
        (root / "src").mkdir()
        fake = root / "src" / "mosquitto"
        fake.write_text(f"#!/bin/sh\nexec '{sys.executable}' '{HERE / 'fake_mosquitto.py'}' \"$@\"\n")
        fake.chmod(0o755)
        work = root / "work"
        work.mkdir()
        command = [sys.executable, HERE / "script_main.py", checkout / "test" / "broker" / name]
        environment = {**os.environ, "BUILD_ROOT": str(root), "HEADWATER": binary, "PYTHONDONTWRITEBYTECODE": "1",
                       "HEADWATER_LOG": "debug"}
        try:
            done = subprocess.run(command + [str(port) for port in free_ports(count)], cwd=work, env=environment,
                                  stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                  errors="replace", timeout=SECONDS)
        except subprocess.TimeoutExpired as late:
            return "failed", f"still runs after {SECONDS} s:\n{late.stdout}"
        options = root / "untranslated"
        if options.exists():
            return "not ours", "tests mosquitto's option " + options.read_text().splitlines()[0]
        return ("passed" if done.returncode == 0 else "failed"), done.stdout
    finally:
        shutil.rmtree(root, ignore_errors=True)


def run(checkout, binary, words=()):
    """(passed, failed) of all scripts that apply; those that do not are printed with their reasons."""
    chosen = [(name, count) for name, count in scripts(checkout) if not words or any(word in name for word in words)]
    passed = failed = 0
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        jobs = [(name, pool.submit(run_script, checkout, binary, name, count)) for name, count in chosen]
        for name, job in jobs:
            verdict, text = job.result()
            if verdict == "passed":
                passed += 1
            elif verdict == "failed":
                failed += 1
                print(f"FAILED  {name}:\n    " + text.strip().replace("\n", "\n    "), flush=True)
            else:
                print(f"not ours: {name}: {text}", flush=True)
    if not words and passed + failed != KNOWN:
        raise Trouble(f"{passed} scripts passed and {failed} failed, {KNOWN} are known")
    return passed, failed
