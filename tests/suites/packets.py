"""MQTT packets as far as a judge of answers needs them: cut from a socket, taken apart, compared by meaning."""

import dataclasses
import socket
import time

CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP = 1, 2, 3, 4, 5, 6, 7
SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK, PINGREQ, PINGRESP, DISCONNECT, AUTH = 8, 9, 10, 11, 12, 13, 14, 15
NAMES = ("0", "CONNECT", "CONNACK", "PUBLISH", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP", "SUBSCRIBE", "SUBACK",
         "UNSUBSCRIBE", "UNSUBACK", "PINGREQ", "PINGRESP", "DISCONNECT", "AUTH")

# Property identifiers by the kind of their value (MQTT 5.0, 2.2.2.2).
KINDS = {1: "byte", 2: 4, 3: "text", 8: "text", 9: "text", 11: "varint", 17: 4, 18: "text", 19: 2, 21: "text",
         22: "text", 23: "byte", 24: 4, 25: "byte", 26: "text", 28: "text", 31: "text", 33: 2, 34: 2, 35: 2,
         36: "byte", 37: "byte", 38: "pair", 39: 4, 40: "byte", 41: "byte", 42: "byte"}
# What a Server announces of itself in CONNACK; the values are its own choice.
RECEIVE_MAXIMUM, TOPIC_ALIAS_MAXIMUM, MAXIMUM_PACKET_SIZE = 33, 34, 39
ANNOUNCED = {17, 18, 19, RECEIVE_MAXIMUM, TOPIC_ALIAS_MAXIMUM, 36, 37, MAXIMUM_PACKET_SIZE, 40, 41, 42}
REASON_STRING, USER_PROPERTY = 31, 38

# Reason Codes that name a fault in a Client's packet, by the packet that carries them (3.2.2.2, 3.14.2.1).
FAULTS = {CONNACK: {0x81, 0x82, 0x84, 0x85, 0x87, 0x8C, 0x90, 0x95, 0x99, 0x9A, 0x9B},
          DISCONNECT: {0x81, 0x82, 0x87, 0x8F, 0x90, 0x93, 0x94, 0x95, 0x99, 0x9A, 0x9B, 0x9E, 0xA1, 0xA2}}
# And the return codes of MQTT 3.1 and 3.1.1 that do (3.2.2.3).
OLD_FAULTS = {1, 2, 4, 5}


class Malformed(Exception):
    """The server sent what is no packet."""


@dataclasses.dataclass(frozen=True)
class Packet:
    """A packet by its parts. What a version or type does not have is None or empty."""

    kind: int
    flags: int
    packet_id: int | None = None
    topic: bytes | None = None
    session_present: int | None = None
    # The Reason Code; SUBACK and UNSUBACK have several. One that is left out is 0.
    reasons: tuple = ()
    properties: tuple = ()
    payload: bytes = b""

    def __str__(self):
        parts = [NAMES[self.kind], f"flags {self.flags:x}"]
        parts += [f"id {self.packet_id}"] if self.packet_id is not None else []
        parts += [f"topic {self.topic!r}"] if self.topic is not None else []
        parts += ["reason " + " ".join(f"{code:02X}" for code in self.reasons)] if self.reasons else []
        parts += [f"properties {self.properties}"] if self.properties else []
        parts += [f"payload {self.payload[:40]!r}"] if self.payload else []
        return "(" + ", ".join(parts) + ")"


class Body:
    """A packet's body, read from the front."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def left(self):
        return len(self.data) - self.at

    def take(self, count):
        if count > self.left():
            raise Malformed(f"{self.data.hex()} ends too early")
        self.at += count
        return self.data[self.at - count:self.at]

    def number(self, count):
        return int.from_bytes(self.take(count), "big")

    def text(self):
        return self.take(self.number(2))

    def varint(self):
        value = 0
        for place in range(4):
            byte = self.number(1)
            value |= (byte & 127) << 7 * place
            if byte < 128:
                return value
        raise Malformed("a Variable Byte Integer of five bytes")

    def value(self, kind):
        if kind == "byte":
            return self.number(1)
        if kind == "text":
            return self.text()
        if kind == "pair":
            return self.text(), self.text()
        return self.varint() if kind == "varint" else self.number(kind)

    def properties(self):
        """Sorted, since their order has no meaning, but for User Properties, which keep theirs."""
        inner, found = Body(self.take(self.varint())), []
        while inner.left():
            identifier = inner.varint()
            if identifier not in KINDS:
                raise Malformed(f"property {identifier}")
            found.append((identifier, inner.value(KINDS[identifier])))
        return tuple(sorted(found, key=lambda one: one[0]))


def parse(raw, version):
    """The packet that these bytes, with their fixed header, are."""
    kind, flags = raw[0] >> 4, raw[0] & 15
    whole = Body(raw[1:])
    body = Body(whole.take(whole.varint()))
    if whole.left():
        raise Malformed(f"{raw.hex()} is longer than it says")
    five = version == 5
    if kind == CONNACK:
        present, reason = body.number(1), body.number(1)
        properties = body.properties() if body.left() else ()
        return Packet(kind, flags, session_present=present, reasons=(reason,), properties=properties)
    if kind == PUBLISH:
        topic = body.text()
        packet_id = body.number(2) if flags & 6 else None
        properties = body.properties() if five else ()
        return Packet(kind, flags, packet_id, topic, properties=properties, payload=body.take(body.left()))
    if kind in (PUBACK, PUBREC, PUBREL, PUBCOMP):
        packet_id = body.number(2)
        reason = body.number(1) if body.left() else 0
        return Packet(kind, flags, packet_id, reasons=(reason,), properties=body.properties() if body.left() else ())
    if kind in (SUBACK, UNSUBACK):
        packet_id = body.number(2)
        properties = body.properties() if five else ()
        return Packet(kind, flags, packet_id, reasons=tuple(body.take(body.left())), properties=properties)
    if kind in (DISCONNECT, AUTH):
        reason = body.number(1) if body.left() else 0
        return Packet(kind, flags, reasons=(reason,), properties=body.properties() if body.left() else ())
    return Packet(kind, flags, payload=body.take(body.left()))


def is_fault(packet, version):
    """Whether a server says with this packet that the client's was wrong, and ends the connection."""
    if packet.kind == CONNACK and packet.reasons[0] in OLD_FAULTS and packet.session_present == 0:
        return True
    return (packet.kind == CONNACK or packet.kind == DISCONNECT and version == 5) \
        and packet.reasons[0] in FAULTS[packet.kind]


def is_wrong_for_all(raw):
    """As `is_fault`, of a packet's bytes, or a refusal in whichever version these are."""
    for version in (4, 5):
        try:
            packet = parse(raw, version)
        except (Malformed, IndexError):
            continue
        if is_fault(packet, 5) or is_refusal(packet):
            return True
    return False


def meaning(packet):
    """The packet without what a Server may add or choose."""
    said = set() if packet.kind in (PUBLISH, AUTH) else {REASON_STRING}
    if packet.kind == CONNACK:
        said |= ANNOUNCED | {USER_PROPERTY}
    kept = tuple(one for one in packet.properties if one[0] not in said)
    reasons = tuple(0 if code == 0x10 else code for code in packet.reasons) if packet.kind in (PUBACK, PUBREC) \
        else packet.reasons
    return dataclasses.replace(packet, properties=kept, reasons=reasons)


def is_refusal(packet):
    """Whether the answer refuses what was asked and leaves the connection."""
    return packet.kind in (PUBACK, PUBREC, SUBACK, UNSUBACK) and packet.reasons and min(packet.reasons) >= 0x80


def same(raw, wanted):
    """Whether a server may send `raw` where another sends `wanted`. Both are whole packets of one version, which is
    seen where it matters: a CONNACK of MQTT 5.0 has properties, and what parses as 5.0 on both sides is compared so."""
    if raw == wanted:
        return True
    if raw[0] != wanted[0]:
        return False
    try:
        got, due = parse(raw, 5), parse(wanted, 5)
    except Malformed:
        return False
    if due.kind in (CONNACK, DISCONNECT) and due.reasons[0] in FAULTS[due.kind]:
        return got.reasons[0] in FAULTS[due.kind]
    if due.kind == CONNACK and not chosen_alike(got, due):
        return False
    if due.kind in (PUBREL, PUBCOMP) and got.reasons == (0x92,):
        # For an identifier that is done with already, which is what that code says (3.7.2.1).
        got = dataclasses.replace(got, reasons=(0,))
    return meaning(got) == meaning(due)


# What mosquitto announces unless it is told otherwise; any other value was asked for.
MOSQUITTO_ANNOUNCES = {RECEIVE_MAXIMUM: 20, TOPIC_ALIAS_MAXIMUM: 10, MAXIMUM_PACKET_SIZE: 2_000_000}


def chosen_alike(got, due):
    got = dict(got.properties)
    return all(got.get(name) == value for name, value in due.properties
               if name in ANNOUNCED and MOSQUITTO_ANNOUNCES.get(name) != value)


class Stream:
    """A connection to the server that cuts what arrives into packets."""

    def __init__(self, port, seconds):
        self.port, self.seconds = port, seconds
        self.socket = socket.create_connection(("127.0.0.1", port), seconds)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""

    def send(self, data):
        """What the server no longer takes is no fault: the judge looks at what it answered."""
        try:
            self.socket.sendall(data)
        except OSError:
            pass

    def packet(self):
        """The next whole packet's bytes, or None once the server has closed; TimeoutError when neither comes."""
        deadline = time.monotonic() + self.seconds
        while True:
            end = self._end()
            if end is not None:
                raw, self.buffer = self.buffer[:end], self.buffer[end:]
                return raw
            self.socket.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                data = self.socket.recv(65536)
            except ConnectionError:
                data = b""
            if not data:
                if self.buffer:
                    raise Malformed(f"closed inside a packet: {self.buffer.hex()}")
                return None
            self.buffer += data

    def _end(self):
        """Where the first packet in the buffer ends."""
        length = 0
        for place, byte in enumerate(self.buffer[1:5]):
            length |= (byte & 127) << 7 * place
            if byte < 128:
                end = 2 + place + length
                return end if end <= len(self.buffer) else None
        if len(self.buffer) > 4:
            raise Malformed(f"a Remaining Length of five bytes: {self.buffer[:8].hex()}")
        return None

    def close(self):
        self.socket.close()
