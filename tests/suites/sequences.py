"""mosquitto's byte sequences (test/broker/data/*.json): our runner of their format, our judgement of the answers.

A sequence is bytes to send and packets to get, then either a closed connection or one that still answers PINGREQ. Their
own runner compares bytes with mosquitto's; here an answer is right that the specification allows at that place:

* what a Server announces of itself in CONNACK is its own choice (MQTT 5.0, 3.2.2.3);
* 0x10 for a PUBLISH without subscribers is a MAY (3.4.2.1, 3.5.2.1), and Reason Strings and User Properties are too;
* packets of different exchanges may come in any order, a PUBLISH before the PUBACK of what caused it or after (4.6);
* for a Malformed Packet or Protocol Error any Reason Code that names a fault of the packet is right (4.13.1), since
  mosquitto's choice between 0x81 and 0x82 is one of several; that a DISCONNECT is sent at all, a SHOULD, is demanded;
* before MQTT 5.0, and for a first packet that is no CONNECT, the connection is closed;
* 0x92 for a Packet Identifier that no PUBLISH of the connection has had is what that code is for (3.6.2.1, 3.7.2.1).

What is wrong or narrower than the specification beyond that stands in `DIFFERENT`, each with the statement.
"""

import contextlib
import dataclasses
import json

from headwater import Trouble
from packets import (CONNACK, PINGRESP, PUBCOMP, PUBLISH, PUBREC, PUBREL, TOPIC_ALIAS_MAXIMUM, Malformed, Stream, is_fault,
                     meaning, parse)

SECONDS = 2
# Sequences that the specification answers otherwise: part of the name, the last answer before PINGRESP (a packet's type
# and its Reason Codes; None for whatever is no refusal), and why. The connection must be as good as before.
MAY_BE_TAKEN = "1.5.4: a receiver MAY treat a control character as a Malformed Packet; 3.1.1, 1.5.3: MAY close. It may take it"
DIFFERENT = [
    ("with U+0001", None, MAY_BE_TAKEN),
    ("with U+001F", None, MAY_BE_TAKEN),
    ("with U+007F", None, MAY_BE_TAKEN),
    ("with U+009F", None, MAY_BE_TAKEN),
    ("with 0x0001", None, MAY_BE_TAKEN),
    ("with 0x001F", None, MAY_BE_TAKEN),
    ("with 0x007F", None, MAY_BE_TAKEN),
    ("with 0x009F", None, MAY_BE_TAKEN),
    ("PUBLISH 34 QoS 2 Dup flow*3", (PUBREC, (0,)),
     "[MQTT-4.3.3-10] until PUBREL it MUST acknowledge any subsequent PUBLISH with the identifier by PUBREC"),
    ("PUBLISH with $ topic - connection/state", (PUBREC, (0x87,)),
     "4.7.2: the Server SHOULD prevent Clients from using $ topics among each other; this one is mosquitto's bridges'"),
]
# Bytes that hold only for mosquitto's announcements, and what they become for ours.
ABOVE_ALIAS_MAXIMUM = ("PUBLISH ALLOWED PROPERTIES topic alias > max topic alias", "H11")
HELD_MAX = 4
# All that the suite has: fewer are a fault of the runner or of the checkout.
KNOWN = 1_826


class Wrong(Exception):
    """What the server did that the specification does not allow there."""


def encoded(text):
    """The bytes of a payload: hex, or 'text', or a letter that says how wide the decimal number after it is.

    A Remaining Length may be longer than the protocol allows.
    """
    out, at, words = b"", 0, text.split(" ")
    while at < len(words):
        word = words[at]
        at += 1
        if not word:
            continue
        if word[0] == "'":
            while not (len(word) > 1 and word.endswith("'")) and at < len(words):
                word += " " + words[at]
                at += 1
            out += word[1:-1].encode()
        elif word[0] in "iHkmsL":
            out += int(word[1:]).to_bytes({"i": 1, "L": 4}.get(word[0], 2), "big")
        elif word[0] in "vr":
            value = int(word[1:])
            while value > 127:
                out += bytes([value & 127 | 128])
                value >>= 7
            out += bytes([value])
        else:
            out += bytes.fromhex(word)
    return out


def connect(client, version):
    """A CONNECT with Clean Start, Keep Alive 60 s and no properties."""
    name = {3: b"MQIsdp"}.get(version, b"MQTT")
    body = len(name).to_bytes(2, "big") + name + bytes([version, 2, 0, 60]) + (b"\0" if version == 5 else b"")
    body += len(client).to_bytes(2, "big") + client
    return bytes([0x10, len(body)]) + body


def publish(topic, qos, payload, retain):
    """A PUBLISH of MQTT 3.1.1, identifier 1."""
    body = len(topic).to_bytes(2, "big") + topic + (b"\0\1" if qos else b"") + payload
    return bytes([0x30 | qos << 1 | retain, len(body)]) + body


class Sequence:
    """One sequence, and what its connection has seen."""

    def __init__(self, group, test):
        self.name = f"{group['group']} {test['name']}"
        chosen = {**{"ver": 4, "connect": True, "expect_disconnect": True}, **group, **test}
        self.version, self.connects, self.closes = chosen["ver"], chosen["connect"], chosen["expect_disconnect"]
        self.messages = test["msgs"]

    def play(self, port):
        """Raises Wrong with what was seen."""
        self._with_stream(port, self._play)

    def play_different(self, port, answer):
        """Only what is sent; then the last answer before PINGRESP must be this one."""
        self._with_stream(port, lambda stream: self._play_sent(stream, answer))

    def _with_stream(self, port, play):
        stream = Stream(port, SECONDS)
        self.held, self.published, self.aliases = [], set(), 0
        try:
            if self.connects:
                stream.send(connect(self.name.encode(), self.version))
                self._expect(stream, b"\x20\x03\0\0\0" if self.version == 5 else b"\x20\x02\0\0")
            play(stream)
        except (Malformed, TimeoutError) as error:
            raise Wrong(f"{type(error).__name__}: {error}") from None
        finally:
            stream.close()

    def _play(self, stream):
        for message in self.messages:
            if message["type"] == "send":
                stream.send(self._bytes(message))
            elif message["type"] == "recv":
                self._expect(stream, encoded(message["payload"]))
            elif message["type"] == "external_publish":
                publish_beside(stream.port, message)
            else:
                raise Wrong(f"this runner does not know {message['type']!r}")
        if not self.closes:
            return self._expect_open(stream)
        got = self._read(stream)
        if got is not None and is_fault(got, self.version):
            got = self._read(stream)
        if got is not None:
            raise Wrong(f"a closed connection was due, got {got}")

    def _play_sent(self, stream, answer):
        for message in self.messages:
            if message["type"] == "send":
                stream.send(self._bytes(message))
        stream.send(b"\xc0\0")
        last = None
        while True:
            got = self._read(stream)
            if got is None or is_fault(got, self.version):
                raise Wrong(f"PINGRESP was due, got {got or 'a closed connection'}")
            if got.kind == PINGRESP:
                break
            last = got
        if answer is not None and (last is None or (last.kind, last.reasons) != answer):
            raise Wrong(f"{answer} was due before PINGRESP, got {last}")

    def _bytes(self, message):
        text = message["payload"]
        if ABOVE_ALIAS_MAXIMUM[0] in self.name:
            text = text.replace(ABOVE_ALIAS_MAXIMUM[1], f"H{self.aliases + 1}")
        raw = encoded(text)
        if raw and raw[0] >> 4 == PUBLISH and raw[0] & 6:
            with contextlib.suppress(Malformed, IndexError):
                self.published.add(parse(raw, self.version).packet_id)
        return raw

    def _read(self, stream):
        raw = stream.packet()
        packet = None if raw is None else parse(raw, self.version)
        if packet is not None and packet.kind == PUBLISH:
            self.published.add(packet.packet_id)
        if packet is not None and packet.kind == CONNACK:
            self.aliases = dict(packet.properties).get(TOPIC_ALIAS_MAXIMUM, 0)
        return packet

    def _expect(self, stream, raw):
        wanted = parse(raw, self.version)
        if is_fault(wanted, self.version):
            return self._expect_fault(stream, wanted)
        for held in self.held:
            if self._same(held, wanted):
                return self.held.remove(held)
        while True:
            got = self._read(stream)
            if got is None:
                raise Wrong(f"closed, {wanted} was due")
            if self._same(got, wanted):
                return None
            if is_fault(got, self.version) or (got.kind == PUBLISH) == (wanted.kind == PUBLISH) \
                    or len(self.held) == HELD_MAX:
                raise Wrong(f"got {got}, {wanted} was due")
            self.held.append(got)

    def _same(self, got, wanted):
        if got.kind in (PUBREL, PUBCOMP) and got.reasons == (0x92,) and got.packet_id not in self.published:
            got = dataclasses.replace(got, reasons=(0,))
        return meaning(got) == meaning(wanted)

    def _expect_fault(self, stream, wanted):
        got = self._read(stream)
        if got is None and wanted.kind == CONNACK:
            return  # An error in CONNECT: the Server MAY send a CONNACK and MUST close (4.13.1).
        if got is None or not is_fault(got, self.version):
            raise Wrong(f"{wanted} or another refusal was due, got {got or 'a closed connection'}")

    def _expect_open(self, stream):
        stream.send(b"\xc0\0")
        got = self._read(stream)
        if self.held or got is None or got.kind != PINGRESP:
            raise Wrong(f"PINGRESP was due, got {(self.held + [got])[0] or 'a closed connection'}")


def publish_beside(port, message):
    """Another client publishes, and waits until that is taken."""
    helper = Stream(port, SECONDS)
    try:
        topic, qos = message["topic"].encode(), message["qos"]
        sent = [connect(b"helper", 4), publish(topic, qos, message["payload"].encode(), message.get("retain", False))]
        sent += [b"\x62\2\0\1"] if qos == 2 else []
        for raw in sent:
            helper.send(raw)
            if (raw[0] >> 4 != PUBLISH or qos) and helper.packet() is None:
                raise Wrong("the helper's connection was closed")
    finally:
        helper.close()


def sequences(checkout):
    """All of them that are not disabled, file by file."""
    for path in sorted((checkout / "test" / "broker" / "data").glob("*.json")):
        for group in json.loads(path.read_text()):
            if not group.get("disable"):
                yield from (Sequence(group, test) for test in group["tests"])


def run(checkout, port, words=()):
    """(passed, failed) of all sequences against the server at `port`; what is not as in the suite is printed."""
    passed, failed, different = 0, 0, {}
    for sequence in sequences(checkout):
        if words and not any(word in sequence.name for word in words):
            continue
        try:
            judge(sequence, port, different)
            passed += 1
        except Wrong as wrong:
            failed += 1
            print(f"FAILED  {sequence.name}: {wrong}", flush=True)
    for why, count in different.items():
        print(f"of these, {count} not as the suite wants it, but as {why}")
    if not words and passed + failed != KNOWN:
        raise Trouble(f"{passed} sequences passed and {failed} failed, {KNOWN} are known")
    return passed, failed


def judge(sequence, port, different):
    """Raises Wrong unless it is answered as the suite or, where that differs, the specification has it."""
    try:
        sequence.play(port)
    except Wrong:
        for part, answer, why in DIFFERENT:
            if part in sequence.name:
                sequence.play_different(port, answer)
                different[why] = different.get(why, 0) + 1
                return
        raise
