"""Starts Headwater where a mosquitto script starts mosquitto: `mosquitto -v [-c FILE] -p PORT`.

Of mosquitto's options those are translated that both brokers have; one that is not makes the script mosquitto's own: it
is named in $BUILD_ROOT/untranslated and nothing starts. Without `persistence true` every start is a first one; with it
the state lives as long as the persistence_file, which the scripts remove.
"""

import os
import pathlib
import shutil
import sys

ROOT = pathlib.Path(os.environ["BUILD_ROOT"])
# What changes nothing here: log, $SYS, and permissions that a server on loopback gives anyway.
WITHOUT_MEANING = {"log_dest", "log_type", "log_timestamp", "sys_interval", "user", "autosave_interval",
                   "autosave_on_changes", "per_listener_settings", "allow_duplicate_messages"}
TRUE_HERE = {"allow_anonymous", "listener_allow_anonymous", "allow_zero_length_clientid", "retain_available",
             "queue_qos0_messages"}
KEYS = {"max_inflight_messages": "mqtt.receive_maximum", "max_packet_size": "mqtt.packet_bytes_max",
        "max_keepalive": "mqtt.keep_alive_seconds_max", "max_queued_messages": "mqtt.queue_messages_max",
        "max_queued_bytes": "mqtt.queue_bytes_max", "max_topic_alias": "mqtt.topic_alias_maximum"}
# As mosquitto: its window, and one thread, since scripts rely on the order of what separate connections do at once.
SETTINGS = {"mqtt.receive_maximum": "20", "default_flows": "false", "mqtt.shards": "1"}


def untranslated(what):
    with open(ROOT / "untranslated", "a", encoding="utf-8") as file:
        file.write(what + "\n")
    sys.exit(3)


def read(path, found):
    for line in pathlib.Path(path).read_text(encoding="utf-8").splitlines():
        words = line.split()
        if words and not words[0].startswith("#"):
            found.append((words[0], " ".join(words[1:])))


def main():
    words, options, ports = sys.argv[1:], [], []
    while words:
        word = words.pop(0)
        if word == "-c":
            read(words.pop(0), options)
        elif word == "-p":
            ports.append(words.pop(0))
        elif word != "-v":
            untranslated(word)
    persists, state = False, None
    settings = dict(SETTINGS)
    for name, value in options:
        if name in ("listener", "port"):
            ports.append(value.split()[0])
        elif name == "persistence":
            persists = value == "true"
        elif name == "persistence_file":
            state = pathlib.Path(value)
        elif name in KEYS:
            settings[KEYS[name]] = value
        elif name == "protocol" and value == "mqtt":
            continue
        elif name not in WITHOUT_MEANING and not (name in TRUE_HERE and value == "true"):
            untranslated(f"{name} {value}")
    if len(set(ports)) != 1:
        untranslated(f"{len(set(ports))} listeners")
    port = ports[0]
    data = ROOT / f"data-{port}"
    if not (persists and (state is None or state.exists())):
        shutil.rmtree(data, ignore_errors=True)
    if persists and state is not None:
        state.touch()
    command = [os.environ["HEADWATER"], "--data-dir", str(data)]
    for door in ("tls", "ws", "wss", "quic", "kafka", "http", "https"):
        settings[f"listeners.{door}.enabled"] = "false"
    settings["listeners.tcp.bind"] = f'"127.0.0.1:{port}"'
    for key, value in settings.items():
        command += ["--set", f"{key}={value}"]
    os.execv(command[0], command)


main()
