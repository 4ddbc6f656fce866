#!/bin/sh
# Kafka's own tools in Java: topics, console producer and consumer with a group, lag, configs.
set -eu
bootstrap=${1:?usage: java.sh BOOTSTRAP}
kafka=${KAFKA_TOOLS:-$(dirname "$0")/../../servers/kafka}
name="java-$$-$(date +%s)"
fail() { echo "java.sh: $*" >&2; exit 1; }
tool() { class=$1; shift; timeout 90 "$kafka" tool "$class" --bootstrap-server "$bootstrap" "$@"; }

tool TopicCommand --create --topic "$name" --partitions 3 --replication-factor 1 >/dev/null ||
    fail "the topic was not created"
tool TopicCommand --describe --topic "$name" | grep -q 'PartitionCount: 3' ||
    fail "the topic is not described with 3 partitions"
seq 1 100 | tool org.apache.kafka.tools.ConsoleProducer --topic "$name" ||
    fail "producing failed"
read_some() {
    tool org.apache.kafka.tools.consumer.ConsoleConsumer --topic "$name" --group "$name" \
        --from-beginning --max-messages "$1" --timeout-ms 30000 2>/dev/null
}
[ "$(read_some 60 | wc -l)" = 60 ] || fail "the group did not read 60 records"
lag() {
    tool ConsumerGroupCommand --describe --group "$name" 2>/dev/null |
        awk -v t="$name" '$2 == t { lag += $6 } END { print lag }'
}
[ "$(lag)" = 40 ] || fail "the lag after 60 of 100 is $(lag), not 40"
[ "$(read_some 40 | wc -l)" = 40 ] || fail "the group did not read the other 40 records"
[ "$(lag)" = 0 ] || fail "the lag after all is $(lag), not 0"
tool ConsumerGroupCommand --list | grep -qx "$name" || fail "the group is not listed"
tool ConsumerGroupCommand --delete --group "$name" >/dev/null || fail "the group was not deleted"
tool org.apache.kafka.tools.GetOffsetShell --topic "$name" |
    awk -F: '{ sum += $3 } END { exit sum != 100 }' || fail "the end offsets do not sum up to 100"
tool TopicCommand --delete --topic "$name" || fail "the topic was not deleted"
echo "java: ok"
