"""Starts Headwater where a mosquitto script starts mosquitto: `mosquitto -v [-c FILE] -p PORT`.

Of mosquitto's options those are translated that both brokers have; one that is not makes the script mosquitto's own: it
is named in $BUILD_ROOT/untranslated and nothing starts. Without `persistence true` every start is a first one; with it
the state lives as long as the persistence_file, which the scripts remove.
"""

import json
import os
import pathlib
import shutil
import sys

ROOT = pathlib.Path(os.environ["BUILD_ROOT"])
# What changes nothing here: log, $SYS, and permissions that a server on loopback gives anyway.
WITHOUT_MEANING = {"log_dest", "log_type", "log_timestamp", "sys_interval", "user", "autosave_interval",
                   "autosave_on_changes", "per_listener_settings", "allow_duplicate_messages"}
TRUE_HERE = {"allow_anonymous", "listener_allow_anonymous", "allow_zero_length_clientid", "queue_qos0_messages"}
KEYS = {"max_inflight_messages": "mqtt.receive_maximum", "max_packet_size": "mqtt.packet_bytes_max",
        "max_keepalive": "mqtt.keep_alive_seconds_max", "max_queued_messages": "mqtt.queue_messages_max",
        "max_queued_bytes": "mqtt.queue_bytes_max", "max_topic_alias": "mqtt.topic_alias_max",
        "maximum_qos": "mqtt.qos_max", "retain_available": "mqtt.retain_available",
        "global_max_connections": "mqtt.connections_max"}
# Of a listener: they belong to the one that was named last. `door` reads those without a name here.
DOOR_KEYS = {"max_connections": "connections_max", "certfile": None, "keyfile": "key_file", "protocol": None,
             "websockets_origin": None, "cafile": None, "crlfile": None, "require_certificate": None,
             "enable_proxy_protocol": None}
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


def door(options):
    """The door that a listener is here, and its settings as TOML."""
    protocol = options.get("protocol", "mqtt")
    if protocol not in ("mqtt", "websockets"):
        untranslated(f"protocol {protocol}")
    is_tls, is_ws = "certfile" in options, protocol == "websockets"
    settings = {DOOR_KEYS[name]: value if value.isdigit() else json.dumps(value)
                for name, value in options.items() if DOOR_KEYS[name]}
    if is_tls:
        # mosquitto finds in its cafile what stands between its certificate and the root; here one file has it all.
        chain = ROOT / "chain.pem"
        chain.write_text("".join(pathlib.Path(options[name]).read_text(encoding="utf-8") for name in ("certfile", "cafile")))
        settings["certificate_file"] = json.dumps(str(chain))
    if is_ws:
        settings["origins"] = json.dumps([options.get("websockets_origin", "*")])
    if options.get("require_certificate") == "true":
        if not is_tls:
            untranslated("require_certificate without certfile")
        settings |= {"client_certificates": '"required"', "client_ca_file": json.dumps(options["cafile"])}
        if "crlfile" in options:
            settings["crl_files"] = json.dumps([options["crlfile"]])
    if "enable_proxy_protocol" in options:
        if options["enable_proxy_protocol"] not in ("1", "2"):
            untranslated(f"enable_proxy_protocol {options['enable_proxy_protocol']}")
        settings["proxy_protocol"] = '["127.0.0.0/8"]'
    return {(False, False): "tcp", (True, False): "tls", (False, True): "ws", (True, True): "wss"}[is_tls, is_ws], settings


def doors(listeners):
    """All settings of all doors."""
    names = ("tcp", "tls", "ws", "wss", "quic", "kafka", "http", "https")
    settings = {f"listeners.{name}.enabled": "false" for name in names}
    for port, options in listeners.items():
        name, its = door(options)
        if settings[f"listeners.{name}.enabled"] == "true":
            untranslated(f"{len(listeners)} listeners of one transport")
        its |= {"enabled": "true", "bind": f'"127.0.0.1:{port}"'}
        settings |= {f"listeners.{name}.{key}": value for key, value in its.items()}
    return settings


def main():
    words, options, port = sys.argv[1:], [], None
    while words:
        word = words.pop(0)
        if word == "-c":
            read(words.pop(0), options)
        elif word == "-p":
            port = words.pop(0)
        elif word != "-v":
            untranslated(word)
    persists, state = False, None
    # What stands before the first listener belongs to the one of -p.
    listeners, current = {}, {}
    settings = dict(SETTINGS)
    for name, value in options:
        if name in ("listener", "port"):
            current = listeners.setdefault(value.split()[0], current if not listeners else {})
        elif name == "persistence":
            persists = value == "true"
        elif name == "persistence_file":
            state = pathlib.Path(value)
        elif name in KEYS:
            settings[KEYS[name]] = value
        elif name in DOOR_KEYS:
            current[name] = value
        elif name not in WITHOUT_MEANING and not (name in TRUE_HERE and value == "true"):
            untranslated(f"{name} {value}")
    if port is not None and port not in listeners:
        listeners[port] = {} if listeners else current
    settings |= doors(listeners)
    data = ROOT / f"data-{next(iter(listeners))}"
    if not (persists and (state is None or state.exists())):
        shutil.rmtree(data, ignore_errors=True)
    if persists and state is not None:
        state.touch()
    command = [os.environ["HEADWATER"], "--data-dir", str(data)]
    for key, value in settings.items():
        command += ["--set", f"{key}={value}"]
    os.execv(command[0], command)


main()
