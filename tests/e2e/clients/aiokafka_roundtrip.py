"""aiokafka: aiokafka_roundtrip.py BOOTSTRAP TOPIC GROUP COUNT produces that many records, reads all of the topic in a consumer
group, commits, and prints them as JSON lines in the order of partition and offset."""

import asyncio
import json
import sys

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer


async def main(bootstrap, topic, group, count):
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=True) as producer:
        for number in range(1, count + 1):
            await producer.send_and_wait(topic, f"aiokafka {number}".encode(), key=f"key-{number % 5}".encode(),
                                         headers=[("from", b"aiokafka")])
    found = []
    async with AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, group_id=group, auto_offset_reset="earliest",
                                enable_auto_commit=False) as consumer:
        while len(found) < count:
            found.append(await asyncio.wait_for(consumer.getone(), 30))
        await consumer.commit()
    for record in sorted(found, key=lambda one: (one.partition, one.offset)):
        headers = {name: value.decode() for name, value in record.headers}
        print(json.dumps({"partition": record.partition, "offset": record.offset, "key": record.key.decode(),
                          "value": record.value.decode(), "headers": headers}))


asyncio.run(main(*sys.argv[1:4], int(sys.argv[4])))
