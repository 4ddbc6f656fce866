"""Stock Kafka clients: they list, produce, read in groups and commit; Kafka's own tools read our lags and our segments
(issue 3, "It shows" 2)."""

import json
import re

from harness import CACHE, HERE, KAFKA, KAFKA_TOOL, check, output, python, server, until

CLIENTS = HERE / "clients"
COUNT = 20


def tool(name, *words, stdin=None):
    return output(KAFKA_TOOL, "tool", name, *words, stdin=stdin, seconds=120)


def lags(group):
    """The lag of each partition as kafka-consumer-groups prints it: {(topic, partition): (committed, end, lag)}."""
    text = tool("ConsumerGroupCommand", "--bootstrap-server", KAFKA, "--describe", "--group", group)
    found = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 6 and words[0] == group and words[2].isdigit():
            number = lambda word: None if word == "-" else int(word)
            found[(words[1], int(words[2]))] = tuple(number(word) for word in words[3:6])
    check(found, f"no partition in what kafka-consumer-groups printed:\n{text}")
    return found


def round_trip(name, command, group):
    """A client produces and reads its own records; then the group has no lag, for Kafka's own tool as well."""
    topic = f"{name}-topic"
    text = output(*command, KAFKA, topic, group, COUNT)
    found = [json.loads(line) for line in text.splitlines()]
    values = sorted(record["value"] for record in found)
    check(values == sorted(f"{name} {number}" for number in range(1, COUNT + 1)), f"{name} read {values}")
    check(all(record["headers"] == {"from": name} for record in found), f"headers of {found}")
    by_partition = {}
    for record in found:
        by_partition.setdefault(record["partition"], []).append(record["offset"])
    for offsets in by_partition.values():
        check(offsets == list(range(len(offsets))), f"{name}: offsets {by_partition}")
    for key in {record["key"] for record in found}:
        check(len({record["partition"] for record in found if record["key"] == key}) == 1, f"{name}: {key} lies apart")
    described = lags(group)
    check(sum(end for _, end, _ in described.values()) == COUNT, f"log end offsets: {described}")
    check(all(lag in (0, None) for _, _, lag in described.values()), f"lag after {name} committed: {described}")


def test_confluent_kafka_reads_what_kcat_produced_compressed(binary):
    with server(binary):
        for codec in ["none", "gzip", "snappy", "lz4", "zstd"]:
            lines = "".join(f"k{number % 3}:{codec} {number}\n" for number in range(COUNT))
            output("kcat", "-b", KAFKA, "-P", "-t", f"codec-{codec}", "-K:", "-z", codec, stdin=lines)
            text = output(python("paho1"), CLIENTS / "confluent_group.py", KAFKA, f"group-{codec}", f"codec-{codec}", COUNT)
            found = sorted(json.loads(line)["value"] for line in text.splitlines())
            check(found == sorted(f"{codec} {number}" for number in range(COUNT)), f"{codec}: {found}")


def test_aiokafka_produces_and_reads_in_a_group(binary):
    with server(binary):
        round_trip("aiokafka", [python("paho1"), CLIENTS / "aiokafka_roundtrip.py"], "aiokafka-group")


def test_confluent_kafka_administers_seeks_and_rebalances(binary):
    with server(binary):
        check("ok" in output(python("paho1"), CLIENTS / "confluent_admin.py", KAFKA, seconds=150), "confluent_admin.py")


def test_aiokafka_members_share_and_take_over(binary):
    with server(binary):
        check("ok" in output(python("paho1"), CLIENTS / "aiokafka_members.py", KAFKA, seconds=150), "aiokafka_members.py")


def test_kafkajs_produces_and_reads_in_a_group(binary):
    with server(binary):
        round_trip("kafkajs", ["node", CLIENTS / "kafkajs" / "roundtrip.js"], "kafkajs-group")


def test_franz_go_produces_and_reads_in_a_group(binary):
    with server(binary):
        round_trip("franz-go", [CACHE / "franz-go-roundtrip"], "franz-group")


def test_java_console_clients_and_lags_that_survive_a_restart(binary):
    with server(binary) as headwater:
        boot = ("--bootstrap-server", KAFKA)
        tool("TopicCommand", *boot, "--create", "--topic", "java", "--partitions", "2")
        check("java" in tool("TopicCommand", *boot, "--list").split(), "kafka-topics --list")
        lines = "".join(f"java {number}\n" for number in range(COUNT))
        tool("ConsoleProducer", *boot, "--topic", "java", stdin=lines)
        text = tool("ConsoleConsumer", *boot, "--topic", "java", "--group", "java-group", "--from-beginning",
                    "--max-messages", COUNT, "--timeout-ms", "30000")
        check(sorted(text.split("\n")[:-1]) == sorted(lines.split("\n")[:-1]), f"the console consumer read:\n{text}")
        before = lags("java-group")
        check(sum(lag for _, _, lag in before.values()) == 0, f"lags: {before}")

        tool("ConsoleProducer", *boot, "--topic", "java", stdin="one more\nand another\n")
        behind = lags("java-group")
        check(sum(lag for _, _, lag in behind.values()) == 2, f"lags after two more: {behind}")
        headwater.kill()
        headwater.start()
        check(lags("java-group") == behind, f"lags after kill -9: {lags('java-group')}, before {behind}")
        text = tool("ConsoleConsumer", *boot, "--topic", "java", "--group", "java-group", "--max-messages", "2",
                    "--timeout-ms", "30000")
        check(sorted(text.splitlines()) == ["and another", "one more"], f"the group went on with:\n{text}")

        ends = tool("org.apache.kafka.tools.GetOffsetShell", *boot, "--topic", "java").split()
        check(sum(int(end.split(":")[2]) for end in ends) == COUNT + 2, f"kafka-get-offsets: {ends}")
        tool("ConsumerGroupCommand", *boot, "--delete", "--group", "java-group")
        groups = tool("ConsumerGroupCommand", *boot, "--list").split()
        check("java-group" not in groups, f"kafka-consumer-groups --list after --delete: {groups}")
        tool("TopicCommand", *boot, "--delete", "--topic", "java")
        until("the topic is gone", lambda: "java" not in tool("TopicCommand", *boot, "--list").split())


def test_dump_log_segments_reads_our_segments(binary):
    with server(binary) as headwater:
        lines = "".join(f"key-{number % 3}:value {number}\n" for number in range(COUNT))
        output("kcat", "-b", KAFKA, "-P", "-t", "dumped", "-K:", "-z", "lz4", stdin=lines)
        output("mosquitto_pub", "-t", "a/b", "-q", "1", "-m", "over MQTT")
        headwater.stop()
        found = 0
        for topic, wanted in [("dumped", COUNT), ("mqtt", 1)]:
            records = 0
            files = sorted((headwater.data / "log").glob(f"{topic}-*/*.log"))
            check(files, f"no segment of {topic} in {headwater.data / 'log'}")
            for segment in files:
                text = tool("DumpLogSegments", "--files", segment, "--deep-iteration", "--print-data-log")
                complaints = [line for line in text.splitlines()
                              if re.search(r"isvalid: false|mismatch|corrupt|not valid|Non-consecutive|Found", line, re.I)]
                check(not complaints, f"{segment}: {complaints}")
                records += len(re.findall(r"^\| offset: \d+", text, re.M))
                for index in [segment.with_suffix(".index"), segment.with_suffix(".timeindex")]:
                    if index.exists():
                        said = tool("DumpLogSegments", "--files", index, "--verify-index-only")
                        check(not re.search(r"mismatch|corrupt|Non-consecutive", said, re.I), f"{index}: {said}")
            check(records == wanted, f"{topic}: DumpLogSegments printed {records} records, {wanted} were written")
            found += records
        check(found == COUNT + 1, f"{found} records in all")
