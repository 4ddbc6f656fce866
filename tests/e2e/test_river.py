"""The river with clients that are not ours: an unmodified MQTT script publishes, and the same five messages stand in
the log, in a consumer group and as documents; a Kafka record reaches a device (issue 3, "It shows" 1)."""

import json
import pathlib
import tempfile

from harness import HERE, KAFKA, check, output, python, records, running, server, until

SEED = HERE / "seed"
TOPIC = "python/mqtt"
MESSAGES = [f"messages: {number}" for number in range(1, 6)]


def exchange_five_messages(interpreter, folder):
    """The seed scripts, as a user runs them: one subscribes, one publishes."""
    with running(interpreter, folder / "subscriber.py") as subscriber:
        subscriber.wait_for("Connected to MQTT Broker!")
        with running(interpreter, folder / "publisher.py") as publisher:
            for message in MESSAGES:
                publisher.wait_for(f"Send `{message}` to topic `{TOPIC}`")
                subscriber.wait_for(f"Received `{message}` from `{TOPIC}` topic")
        received = [line for line in subscriber.lines if line.startswith("Received")]
        check(len(received) == 5, f"five messages were published, received: {received}")


def test_seed_scripts_kcat_consumer_group_documents_and_a_command(binary):
    with server(binary) as headwater:
        exchange_five_messages(python("paho1"), SEED)

        found = records("mqtt")
        check([record["payload"] for record in found] == MESSAGES, f"kcat read {found}")
        for record in found:
            headers = record["headers"]
            check(headers.get("mqtt-topic") == TOPIC, f"header mqtt-topic of {record}")
            check(headers.get("mqtt-qos") == "0", f"header mqtt-qos of {record}")
            check(headers.get("mqtt-client", "").startswith("python-mqtt-"), f"header mqtt-client of {record}")
        # One client, one key, one partition: its order is the log's order.
        check(len({record["partition"] for record in found}) == 1, f"one publisher's records lie apart: {found}")

        group = HERE / "clients" / "confluent_group.py"
        lines = output(python("paho1"), group, KAFKA, "river", "mqtt", "5").splitlines()
        read = [json.loads(line) for line in lines]
        check([record["value"] for record in read] == MESSAGES, f"the consumer group read {read}")
        check(all(record["headers"]["mqtt-topic"] == TOPIC for record in read), f"headers of {read}")

        find = lambda: headwater.verb("doc", "find").splitlines()
        until("five documents", lambda: len(find()) >= 5 and find(), seconds=10)
        documents = [json.loads(line) for line in find()]
        check(sorted(one["payload"] for one in documents) == MESSAGES, f"documents: {documents}")
        check(all(one["topic"] == TOPIC and one["kafka_topic"] == "mqtt" for one in documents), f"{documents}")
        check(headwater.verb("doc", "count").strip() == "5", "headwater doc count")

        with running(python("paho1"), SEED / "subscriber.py") as subscriber:
            subscriber.wait_for("Connected to MQTT Broker!")
            command = ["kcat", "-b", KAFKA, "-P", "-t", "mqtt.commands", "-k", TOPIC]
            # The script prints before it subscribes: a command may come too early for it, another one will not.
            def command_arrives():
                output(*command, stdin="open the gate\n")
                return any("Received `open the gate`" in line for line in subscriber.lines)
            until("the Kafka record at the device", command_arrives, seconds=10)
        check(len(records("mqtt")) == 5, "what deliver publishes is not routed again")


def test_seed_scripts_with_paho_2_and_its_callback_argument(binary):
    with tempfile.TemporaryDirectory() as folder, server(binary):
        folder = pathlib.Path(folder)
        for script in SEED.glob("*.py"):
            text = script.read_text()
            changed = text.replace("mqtt_client.Client(client_id)",
                                   "mqtt_client.Client(mqtt_client.CallbackAPIVersion.VERSION1, client_id)")
            check(text != changed, f"{script} has no Client(client_id) to give the argument to")
            (folder / script.name).write_text(changed)
        exchange_five_messages(python("paho2"), folder)
        check([record["payload"] for record in records("mqtt")] == MESSAGES, "the log after paho 2")


def test_publisher_reconnects_when_the_server_is_restarted_under_it(binary):
    with server(binary) as headwater:
        with running(python("paho1"), SEED / "publisher.py") as publisher:
            publisher.wait_for("Send `messages: 1`")
            headwater.stop()
            headwater.start()
            publisher.wait_for("Connected to MQTT Broker!", times=2)
            publisher.wait_for("Send `messages: 5`")
            stored = lambda: [record["payload"] for record in records("mqtt")]
            until("the messages of both lives in the log",
                  lambda: {"messages: 1", "messages: 5"} <= set(stored()), seconds=10)
            check(stored() == sorted(set(stored())), f"in order and once: {stored()}")


def test_publisher_reconnects_when_the_server_is_killed_under_it(binary):
    with server(binary) as headwater:
        with running(python("paho1"), SEED / "publisher.py") as publisher:
            publisher.wait_for("Send `messages: 2`")
            headwater.kill()
            headwater.start()
            publisher.wait_for("Connected to MQTT Broker!", times=2)
            publisher.wait_for("Send `messages: 5`")
            until("the last message in the log",
                  lambda: "messages: 5" in [record["payload"] for record in records("mqtt")], seconds=10)


def test_one_message_goes_through_mosquitto_clients_both_ways(binary):
    with server(binary):
        with running("stdbuf", "-oL", "mosquitto_sub", "-V", "mqttv5", "-t", "house/#", "-q", "2", "-v", "-d") as subscriber:
            subscriber.wait_for("Subscribed")
            output("mosquitto_pub", "-V", "mqttv311", "-t", "house/door", "-q", "2", "-m", "open")
            subscriber.wait_for("house/door open")
        output("mosquitto_pub", "-V", "mqttv5", "-t", "house/light", "-q", "1", "-r", "-m", "on")
        kept = output("mosquitto_sub", "-t", "house/light", "-C", "1", "-W", "10").strip()
        check(kept == "on", f"retained: {kept}")
