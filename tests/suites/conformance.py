"""LabOverWire/mqtt-lib's mqtt5-conformance against each door: what it says over TCP it says over TLS and WebSocket too.

Its clients speak TCP, so for the other transports a relay stands between. It is built in a copy, outside our workspace.
"""

import os
import re
import shutil
import subprocess
import tarfile

from headwater import Trouble, server
from relay import relay

CONFIG = "default_flows = false\n"
SECONDS = 900
# What our broker is, in the suite's words. The specification lets it take other client identifiers than 3.1.3.1 names
# [MQTT-3.1.3-5] and refuse topics that begin with $ (4.7.2).
SUT = """
name = "headwater"
address = "mqtt://127.0.0.1:{port}"
{websocket}
[capabilities]
dollar_sys_publish = false
strict_client_id_charset = false
shared_subscription_distribution = "RoundRobin"
[capabilities.transports]
tcp = true
websocket = {has_websocket}
"""
# Tests that the specification decides otherwise, and why.
DIFFERENT = {
    "overlapping_subs_max_qos_delivered": "wants two copies; one at the highest QoS is due, further ones are a MAY [MQTT-3.3.4-2]",
    "overlapping_subs_subscription_ids_per_copy": "wants two copies; one copy carries all identifiers [MQTT-3.3.4-4]",
}
# Those that apply, a door: fewer are a fault of the runner or of the checkout.
APPLY = 182


def build(checkout, cache):
    """The suite's command, built once a commit."""
    git = ["git", "-C", str(checkout)]
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    folder = cache / "mqtt-lib"
    mark = folder / ".commit"
    if not mark.exists() or mark.read_text() != commit:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        archive = subprocess.Popen([*git, "archive", "HEAD"], stdout=subprocess.PIPE)
        with tarfile.open(fileobj=archive.stdout, mode="r|") as tar:
            tar.extractall(folder)
        if archive.wait() != 0:
            raise Trouble(f"git archive of {checkout} failed")
        mark.write_text(commit)
    target = cache / "target"
    environment = {**os.environ, "CARGO_TARGET_DIR": str(target), "CARGO_PROFILE_DEV_DEBUG": "0"}
    done = subprocess.run(["cargo", "build", "-p", "mqtt5-conformance-cli"], cwd=folder, env=environment,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise Trouble(f"mqtt5-conformance does not build:\n{done.stdout[-4000:]}")
    return target / "debug" / "mqtt5-conformance"


def run(checkout, binary, cache, words=()):
    """(passed, failed) over all doors."""
    command = build(checkout, cache)
    passed = failed = 0
    with server(binary, CONFIG) as running:
        for door in ("tcp", "tls", "ws", "wss"):
            if door not in running.ports:
                raise Trouble(f"this server has no door {door}")
            good, bad = run_over(command, running, door, cache, words)
            if not words and good + bad != APPLY:
                raise Trouble(f"{good + bad} tests ran over {door}, {APPLY} are known")
            passed, failed = passed + good, failed + bad
    return passed, failed


def run_over(command, running, door, cache, words):
    websocket = running.ports.get("ws")
    with relay(running, door) as port:
        sut = cache / f"sut-{door}.toml"
        address = f'ws_address = "ws://127.0.0.1:{websocket}/mqtt"' if websocket else ""
        sut.write_text(SUT.format(port=port, websocket=address, has_websocket=str(bool(websocket)).lower()))
        # One after the other: some of the tests use the same topics.
        # Their panics, on the other stream, would come into the middle of a line.
        done = subprocess.run([command, "--sut", sut, "--test-threads", "1", *words], stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, text=True, timeout=SECONDS)
    summary = re.search(r"^test result: .* (\d+) passed; (\d+) failed; (\d+) ignored", done.stdout, re.M)
    if summary is None or summary[1] == "0":
        raise Trouble(f"mqtt5-conformance ran nothing over {door}:\n{done.stdout[-4000:]}")
    good, bad, skipped, different = 0, [], [], []
    for line in done.stdout.splitlines():
        result = re.match(r"test (.*?)\s+\.\.\. (ok|FAILED|ignored)", line)
        if result is None:
            continue
        name = result[1]
        if result[2] == "ignored":
            skipped.append(name)
        elif result[2] == "ok":
            good += 1
        elif any(one in name for one in DIFFERENT):
            different.append(name)
            print(f"not ours over {door}: {name}: {next(why for one, why in DIFFERENT.items() if one in name)}")
        else:
            bad.append(name)
    if [good, len(bad) + len(different), len(skipped)] != [int(count) for count in summary.groups()]:
        raise Trouble(f"of {summary[0]!r} over {door} only {good}, {len(bad)} and {len(skipped)} were read")
    if bad:
        print(done.stdout[-20000:])
    for name in bad:
        print(f"FAILED  over {door}: {name}")
    for name in skipped:
        print(f"does not apply over {door}: {name}")
    print(f"over {door}: {good} passed, {len(bad)} failed, {len(skipped)} do not apply", flush=True)
    return good, len(bad)
