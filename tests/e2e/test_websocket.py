"""MQTT over WebSocket with clients that are not ours: paho in Python, mqtt.js in Node (issue 4, "It shows" 3)."""

import json

from harness import HERE, check, output, python, server

CLIENTS = HERE / "clients"
EXPECTED = [(0, 1), (1, 1), (1, 300_000), (2, 1)]


def came_back(text):
    found = [json.loads(line) for line in text.splitlines()]
    check(sorted((one["qos"], one["bytes"]) for one in found) == EXPECTED, f"came back: {found}")


def test_paho_over_websocket_plain_and_secure(binary):
    with server(binary) as headwater:
        paho = [python("paho2"), CLIENTS / "paho_websocket.py", "localhost"]
        came_back(output(*paho, 8083))
        came_back(output(*paho, 8084, headwater.data / "tls" / "ca.pem"))


def test_mqttjs_over_websocket_plain_and_secure(binary):
    with server(binary) as headwater:
        mqttjs = ["node", CLIENTS / "mqttjs" / "roundtrip.js"]
        came_back(output(*mqttjs, "ws://localhost:8083/mqtt"))
        came_back(output(*mqttjs, "wss://localhost:8084/mqtt", headwater.data / "tls" / "ca.pem"))
