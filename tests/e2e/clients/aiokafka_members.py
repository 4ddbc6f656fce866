"""aiokafka: aiokafka_members.py BOOTSTRAP produces, reads in a group that goes on where it was, shares partitions between two
members and takes them over, seeks by time. Ends with 0, or with a sentence and 1."""

import asyncio
import sys
import uuid

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

bootstrap = sys.argv[1]
name = f"aio-{uuid.uuid4().hex[:8]}"


def check(holds, what):
    if not holds:
        sys.exit(f"aiokafka_members.py: {what}")


def consumer(group):
    return AIOKafkaConsumer(
        name, bootstrap_servers=bootstrap, group_id=group, auto_offset_reset="earliest",
        enable_auto_commit=False, session_timeout_ms=6000, heartbeat_interval_ms=500,
        metadata_max_age_ms=2000,
    )


async def read(reader, count):
    return [await reader.getone() for _ in range(count)]


async def main():
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(name, 2, 1)])
    check(name in await admin.list_topics(), "the created topic is not listed")

    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=True, compression_type="gzip")
    await producer.start()
    for number in range(100):
        await producer.send(name, f"{number}".encode(), key=f"{number % 7}".encode())
    await producer.flush()

    reader = consumer(name)
    await reader.start()
    seen = await read(reader, 100)
    check(len({record.value for record in seen}) == 100, "records are missing or doubled")
    await reader.commit()
    await reader.stop()

    await producer.send_and_wait(name, b"later")
    reader = consumer(name)
    await reader.start()
    check([r.value for r in await read(reader, 1)] == [b"later"], "the group did not go on where it was")
    await reader.stop()

    pair = [consumer(f"{name}-pair"), consumer(f"{name}-pair")]
    for member in pair:
        await member.start()
    while [len(member.assignment()) for member in pair] != [1, 1]:
        await asyncio.gather(*(member.getmany(timeout_ms=200) for member in pair))
    await pair[0].stop()
    while len(pair[1].assignment()) != 2:
        await pair[1].getmany(timeout_ms=200)
    await pair[1].stop()

    partition = TopicPartition(name, 0)
    stamped = await producer.send_and_wait(name, b"stamped", partition=0, timestamp_ms=4_000_000_000_000)
    reader = consumer(f"{name}-time")
    await reader.start()
    found = await reader.offsets_for_times({partition: 3_999_999_999_999})
    check(found[partition].offset == stamped.offset, f"offset by time is {found[partition]}")
    await reader.stop()
    await producer.stop()

    groups = [group for group, *_ in await admin.list_consumer_groups()]
    check(name in groups, "the group is not listed")
    await admin.delete_topics([name])
    check(name not in await admin.list_topics(), "the deleted topic is still listed")
    await admin.close()
    print("aiokafka: ok")


asyncio.run(asyncio.wait_for(main(), 120))
