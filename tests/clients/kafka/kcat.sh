#!/bin/sh
# kcat: list, produce with every compression, consume, seek by time, read in a group that goes on.
set -eu
bootstrap=${1:?usage: kcat.sh BOOTSTRAP}
name="kcat-$$-$(date +%s)"
fail() { echo "kcat.sh: $*" >&2; exit 1; }
kc() { timeout 30 kcat -b "$bootstrap" -q "$@"; }
same() { [ "$1" = "$2" ] || fail "$3: expected $2, got $1"; }

kc -L >/dev/null || fail "-L failed"
for codec in none gzip snappy lz4 zstd; do
    seq 1 1000 | kc -P -t "$name-$codec" -z "$codec" || fail "producing with $codec failed"
    same "$(kc -C -t "$name-$codec" -e | sort -n | cksum)" "$(seq 1 1000 | cksum)" "$codec"
done
seq 1001 1010 | kc -P -t "$name-none" -X acks=1 || fail "acks=1 failed"
seq 1011 1020 | kc -P -t "$name-none" -X enable.idempotence=true || fail "idempotence failed"
same "$(kc -C -t "$name-none" -e | sort -n | tail -1)" 1020 "acks=1 and idempotent records"

echo old | kc -P -t "$name-time" -p 0
sleep 1.1
between=$(($(date +%s) * 1000))
sleep 0.1
echo new | kc -P -t "$name-time" -p 0 -H a=b -k key
same "$(kc -C -t "$name-time" -p 0 -o "s@$between" -e)" new "-o by time"
same "$(kc -Q -t "$name-time:0:$between")" "$name-time [0] offset 1" "-Q by time"
same "$(kc -C -t "$name-time" -p 0 -o 1 -e -f '%k %h %s\n')" "key a=b new" "key and headers"
same "$(kc -C -t "$name-time" -p 0 -o -1 -e)" new "the last one"

group() { kc -G "$name-group" "$name-none" -e -X auto.offset.reset=earliest; }
same "$(group | wc -l)" 1020 "the group's first reading"
seq 1 7 | kc -P -t "$name-none"
same "$(group | wc -l)" 7 "the group's second reading"
echo "kcat: ok"
