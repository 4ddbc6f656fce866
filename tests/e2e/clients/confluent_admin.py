"""librdkafka's whole range: confluent_admin.py BOOTSTRAP makes, changes and deletes topics, produces idempotently with every
compression, reads in groups that commit and share, seeks by time, deletes records, and is refused what is not served. Ends
with 0, or with a sentence and 1."""

import sys
import time
import uuid

from confluent_kafka import OFFSET_BEGINNING, Consumer, ConsumerGroupTopicPartitions, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (
    AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, NewTopic, OffsetSpec,
)

bootstrap = sys.argv[1]
name = f"confluent-{uuid.uuid4().hex[:8]}"
deadline = time.monotonic() + 120


def check(holds, what):
    if not holds:
        sys.exit(f"confluent_admin.py: {what}")


def consumer(group, **more):
    return Consumer({
        "bootstrap.servers": bootstrap, "group.id": group, "auto.offset.reset": "earliest",
        "enable.auto.commit": False, "session.timeout.ms": 6000, **more,
    })


def read(reader, count):
    seen = []
    while len(seen) < count and time.monotonic() < deadline:
        message = reader.poll(0.5)
        if message is not None:
            check(message.error() is None, f"reading failed: {message.error()}")
            seen.append(message)
    check(len(seen) == count, f"expected {count} records, got {len(seen)}")
    return seen


admin = AdminClient({"bootstrap.servers": bootstrap})
admin.create_topics([NewTopic(name, 3, 1, config={"retention.ms": "1000000"})])[name].result(10)
check(name in admin.list_topics(timeout=10).topics, "the created topic is not listed")
try:
    admin.create_topics([NewTopic(name, 3, 1)])[name].result(10)
    check(False, "a topic was created twice")
except KafkaException as error:
    check(error.args[0].name() == "TOPIC_ALREADY_EXISTS", f"created twice: {error}")

# Nothing compacts yet, so that it must not be promised.
try:
    admin.create_topics([NewTopic(f"{name}-compacted", 1, 1, config={"cleanup.policy": "compact"})])[f"{name}-compacted"].result(10)
    check(False, "a compacted topic was promised")
except KafkaException as error:
    check(error.args[0].name() == "INVALID_CONFIG" and "compaction" in error.args[0].str(), f"compacted: {error}")
check(not [topic for topic in admin.list_topics(timeout=10).topics if topic.startswith("__")], "internal topics are listed")

produced = []
for codec in ["none", "gzip", "snappy", "lz4", "zstd"]:
    producer = Producer({
        "bootstrap.servers": bootstrap, "enable.idempotence": True, "compression.type": codec,
    })
    for number in range(200):
        producer.produce(
            name, key=str(number), value=f"{codec}-{number}", headers={"codec": codec},
            on_delivery=lambda error, message: produced.append(error),
        )
    check(producer.flush(30) == 0, f"{codec}: not all were delivered")
check(produced == [None] * 1000, "a delivery failed")

reader = consumer(name)
reader.subscribe([name])
seen = read(reader, 1000)
check(len({message.value() for message in seen}) == 1000, "records are missing or doubled")
check(all(dict(m.headers())["codec"].decode() in m.value().decode() for m in seen), "headers differ")
reader.commit(asynchronous=False)
described = admin.describe_consumer_groups([name])[name].result(10)
check(str(described.state).endswith("STABLE") and len(described.members) == 1, f"group is {described.state}")
reader.close()

committed = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(name)])[name].result(10)
check(sum(p.offset for p in committed.topic_partitions) == 1000, "committed offsets are wrong")
producer.produce(name, value="later")
check(producer.flush(10) == 0, "the later record was not delivered")
reader = consumer(name)
reader.subscribe([name])
check([m.value() for m in read(reader, 1)] == [b"later"], "the group did not go on where it was")
reader.close()

# Two members share the partitions, and one takes all when the other leaves.
pair = [consumer(f"{name}-pair"), consumer(f"{name}-pair")]
for member in pair:
    member.subscribe([name])
while time.monotonic() < deadline:
    for member in pair:
        member.poll(0.1)
    if sorted(len(member.assignment()) for member in pair) == [1, 2]:
        break
check(sorted(len(member.assignment()) for member in pair) == [1, 2], "two members do not share")
pair[0].close()
while len(pair[1].assignment()) < 3 and time.monotonic() < deadline:
    pair[1].poll(0.1)
check(len(pair[1].assignment()) == 3, "the remaining member did not take all")
pair[1].close()

single = f"{name}-time"
admin.create_topics([NewTopic(single, 1, 1)])[single].result(10)
for number in range(5):
    producer.produce(single, value=str(number), timestamp=1_600_000_000_000 + number * 1000)
producer.flush(10)
reader = consumer(f"{name}-time")
[found] = reader.offsets_for_times([TopicPartition(single, 0, 1_600_000_002_500)], timeout=10)
check(found.offset == 3, f"offset by time is {found.offset}, not 3")
check(reader.get_watermark_offsets(TopicPartition(single, 0), timeout=10) == (0, 5), "watermarks")
newest = admin.list_offsets({TopicPartition(single, 0): OffsetSpec.max_timestamp()})
check(list(newest.values())[0].result(10).offset == 4, "offset of the greatest timestamp")

admin.delete_records([TopicPartition(single, 0, 2)])[TopicPartition(single, 0)].result(10)
check(reader.get_watermark_offsets(TopicPartition(single, 0), timeout=10) == (2, 5), "after DeleteRecords")
reader.assign([TopicPartition(single, 0, OFFSET_BEGINNING)])
check([m.value() for m in read(reader, 3)] == [b"2", b"3", b"4"], "records after DeleteRecords")
reader.close()

admin.create_partitions([NewPartitions(single, 2)])[single].result(10)
resource = ConfigResource(ConfigResource.Type.TOPIC, single)
resource.add_incremental_config(
    ConfigEntry("retention.ms", "5000", incremental_operation=AlterConfigOpType.SET))
admin.incremental_alter_configs([resource])[resource].result(10)
described = admin.describe_configs([ConfigResource(ConfigResource.Type.TOPIC, single)])
settings = list(described.values())[0].result(10)
check(settings["retention.ms"].value == "5000", f"retention.ms is {settings['retention.ms'].value}")
check(len(admin.list_topics(single, timeout=10).topics[single].partitions) == 2, "partitions")
check(admin.describe_cluster().result(10).controller.id is not None, "no controller")
check(any(g.group_id == name for g in admin.list_consumer_groups().result(10).valid), "group not listed")
admin.delete_consumer_groups([name])[name].result(10)
for topic in [name, single]:
    admin.delete_topics([topic])[topic].result(10)
check(name not in admin.list_topics(timeout=10).topics, "the deleted topic is still listed")

transactional = Producer({"bootstrap.servers": bootstrap, "transactional.id": name})
try:
    transactional.init_transactions(10)
    check(False, "transactions are not served, but were begun")
except KafkaException as error:
    refusal = error.args[0]
    check(refusal.name() == "TRANSACTIONAL_ID_AUTHORIZATION_FAILED" and refusal.fatal(), f"transactions: {error}")
print("confluent-kafka: ok")
