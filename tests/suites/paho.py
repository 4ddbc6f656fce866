"""eclipse/paho.mqtt.testing: the interoperability tests of MQTT 3.1.1 and 5.0, each file against a server of its own.

Two of them ask for a configuration: a Keep Alive of 60 s that the server sets, and a filter that nobody may subscribe to.
One, test_subscribe_options, publishes before the SUBACK of another connection (it waits for the wrong one's), so that there is
one thread, which takes them in order.
"""

import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys

from headwater import Trouble, server

CONFIG = """
default_flows = false

[mqtt]
keep_alive_seconds_max = 60
shards = 1

[[permission]]
effect = "deny"
action = "subscribe"
topic = "test/nosubscribe"
"""
HERE = pathlib.Path(__file__).resolve().parent
FILES = {"client_test.py": 10, "client_test5.py": 27}
SECONDS = 600


def run(checkout, binary, words=()):
    """(passed, failed) of both files; the output of one that failed is printed."""
    folder = checkout / "interoperability"
    passed = failed = 0
    with concurrent.futures.ThreadPoolExecutor() as pool:
        for name, (good, bad, text) in zip(FILES, pool.map(lambda name: run_file(folder, binary, name, words), FILES)):
            passed, failed = passed + good, failed + bad
            if not words and good + bad != FILES[name]:
                raise Trouble(f"{name} ran {good + bad} tests, {FILES[name]} are known:\n{text}")
            if bad:
                print(text, flush=True)
    return passed, failed


def run_file(folder, binary, name, words):
    """(passed, failed, output) of one file."""
    with server(binary, CONFIG) as running:
        command = [sys.executable, HERE / "paho_main.py", name, "127.0.0.1", str(running.ports["tcp"]), *words]
        done = subprocess.run(command, cwd=folder, text=True, timeout=SECONDS, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
    ran = re.search(r"^Ran (\d+) tests?", done.stdout, re.M)
    # One that was skipped did not pass.
    bad = sum(int(number) for number in re.findall(r"(?:failures|errors|skipped)=(\d+)", done.stdout)) if ran else 1
    if (done.returncode == 0) != (bad == 0):
        raise Trouble(f"{name} ended with {done.returncode}, {bad} tests not passed:\n{done.stdout}")
    return (int(ran[1]) - bad if ran else 0), bad, done.stdout
