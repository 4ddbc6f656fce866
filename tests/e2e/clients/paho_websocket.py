"""paho-mqtt over a WebSocket: what it publishes to itself at each QoS comes back.

paho_websocket.py HOST PORT [CA FILE]: with a CA file, over TLS.
"""

import json
import sys
import threading

import paho.mqtt.client as mqtt

HOST, PORT, *CA = sys.argv[1:]
TOPIC = "paho/websocket"
WANTED = ["0", "1", "2", "x" * 300_000]

found, done = [], threading.Event()


def on_connect(client, userdata, flags, reason, properties):
    client.subscribe(TOPIC, qos=2)


def on_subscribe(client, userdata, mid, reasons, properties):
    for qos, payload in zip([0, 1, 2, 1], WANTED):
        client.publish(TOPIC, payload, qos=qos)


def on_message(client, userdata, message):
    found.append(message.payload.decode())
    print(json.dumps({"qos": message.qos, "bytes": len(message.payload)}), flush=True)
    if len(found) == len(WANTED):
        done.set()


client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, transport="websockets", protocol=mqtt.MQTTv5)
client.on_connect, client.on_subscribe, client.on_message = on_connect, on_subscribe, on_message
if CA:
    client.tls_set(CA[0])
client.connect(HOST, int(PORT))
client.loop_start()
if not done.wait(20):
    sys.exit(f"{len(found)} messages came back")
client.disconnect()
client.loop_stop()
if sorted(found) != sorted(WANTED):
    sys.exit("other payloads came back")
