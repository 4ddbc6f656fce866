"""paho-mqtt over one transport: connects in MQTT 3.1.1 and 5, publishes at each QoS and gets it back.

paho_transports.py TRANSPORT PORT [CA_FILE [CERT_FILE KEY_FILE]], TRANSPORT one of tcp tls ws wss."""

import queue
import sys

import paho.mqtt.client as mqtt

SECONDS = 10
SIZES = [5, 70_000, 1_000_000]


def roundtrip(transport, port, version, tls):
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=version,
                         transport="websockets" if transport.startswith("ws") else "tcp")
    if transport in ("tls", "wss"):
        ca, *pair = tls
        client.tls_set(ca_certs=ca, certfile=pair[0] if pair else None, keyfile=pair[1] if pair else None)
    said, received = queue.Queue(), queue.Queue()
    client.on_connect = lambda _client, _data, _flags, reason, _properties: said.put(("connect", reason))
    client.on_subscribe = lambda _client, _data, _id, reasons, _properties: said.put(("subscribe", reasons[0]))
    client.on_message = lambda _client, _data, message: received.put((message.qos, len(message.payload)))
    client.connect("127.0.0.1", port, keepalive=30)
    client.loop_start()
    what, reason = said.get(timeout=SECONDS)
    assert (what, reason.is_failure) == ("connect", False), (what, reason)
    topic = f"transport/{transport}/{version}"
    client.subscribe(topic, 2)
    what, reason = said.get(timeout=SECONDS)
    assert (what, reason.value) == ("subscribe", 2), (what, reason)
    for qos, size in enumerate(SIZES):
        client.publish(topic, b"x" * size, qos).wait_for_publish(SECONDS)
    found = sorted(received.get(timeout=SECONDS) for _ in SIZES)
    assert found == list(enumerate(SIZES)), found
    client.disconnect()
    client.loop_stop()
    assert received.empty(), "and no more"


def main():
    transport, port, *tls = sys.argv[1:]
    for version in (mqtt.MQTTv311, mqtt.MQTTv5):
        roundtrip(transport, int(port), version, tls)
        print(f"ok {transport} MQTT {version}")


main()
