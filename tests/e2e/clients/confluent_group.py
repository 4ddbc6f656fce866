"""A consumer group of librdkafka: confluent_group.py BOOTSTRAP GROUP TOPIC COUNT prints that many records as JSON lines
in the order of topic, partition, offset, commits them, and leaves."""

import json
import sys
import time

from confluent_kafka import Consumer

bootstrap, group, topic, count = sys.argv[1:]
consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "auto.offset.reset": "earliest",
                     "enable.auto.commit": False})
consumer.subscribe([topic])
found = []
deadline = time.monotonic() + 30
while len(found) < int(count):
    if time.monotonic() > deadline:
        sys.exit(f"{len(found)} of {count} records in 30 s")
    record = consumer.poll(0.5)
    if record is None:
        continue
    if record.error():
        sys.exit(str(record.error()))
    found.append(record)
consumer.commit(asynchronous=False)
consumer.close()
for record in sorted(found, key=lambda one: (one.topic(), one.partition(), one.offset())):
    headers = {name: value.decode() for name, value in record.headers() or []}
    print(json.dumps({"partition": record.partition(), "offset": record.offset(), "key": (record.key() or b"").decode(),
                      "value": record.value().decode(), "headers": headers}))
