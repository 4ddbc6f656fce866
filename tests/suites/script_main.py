"""Runs one of mosquitto's broker scripts with another judge of packets: script_main.py SCRIPT PORT...

Their judge compares the bytes that arrive with mosquitto's. This one reads whole packets and compares what they mean:
see `packets.same`. A Packet Identifier that the server chose is its own [MQTT-2.2.1-4]: the script goes on with the one it
wants, and its answers are rewritten. Where the script wants a closed connection, a refusal before that, or in the
answer's Reason Code, is as good.
"""

import pathlib
import runpy
import socket
import sys

import packets

script = pathlib.Path(sys.argv[1]).resolve()
sys.path[:0] = [str(script.parent), str(script.parent.parent)]
import mosq_test  # noqa: E402: it is found by the path above

# They take nothing but a closed connection for the answer to a bad Will; the Server MAY send a CONNACK before (4.13.1).
WANT_CLOSED = {"07-will-delay-invalid-573191.py", "07-will-null-topic.py"}
HELD_MAX = 4
held = {}


def take(sock, count):
    data = b""
    while len(data) < count:
        got = sock.recv(count - len(data))
        if not got:
            raise BrokenPipeError(f"closed inside a packet after {data.hex()}")
        data += got
    return data


def packet(sock):
    """The next packet's bytes; BrokenPipeError at the end, as theirs."""
    raw = take(sock, 2)
    while raw[-1] & 128:
        raw += take(sock, 1)
    length = sum((byte & 127) << 7 * place for place, byte in enumerate(raw[1:]))
    return raw + take(sock, length)


class Socket(socket.socket):
    """A socket whose answers name the identifier that the server chose."""

    def send(self, data, *flags):
        chosen = getattr(self, "chosen", {})
        if chosen and data[0] >> 4 in (packets.PUBACK, packets.PUBREC, packets.PUBCOMP) and data[1] == len(data) - 2:
            data = data[:2] + chosen.get(data[2:4], data[2:4]) + data[4:]
        return super().send(data, *flags)


def renumbered(sock, raw, expected):
    """The PUBLISH or PUBREL with the identifier that the script wants, if that is all the difference."""
    kind = raw[0] >> 4
    chosen = sock.__dict__.setdefault("chosen", {}) if isinstance(sock, Socket) else {}
    if kind == packets.PUBREL:
        back = {value: key for key, value in chosen.items()}
        return raw[:2] + back.get(raw[2:4], raw[2:4]) + raw[4:]
    if kind != packets.PUBLISH or not raw[0] & 6 or len(raw) != len(expected) or raw[0] != expected[0]:
        return raw
    start = 1 + next(place for place, byte in enumerate(raw[1:5], 1) if byte < 128)
    at = start + 2 + int.from_bytes(raw[start:start + 2], "big")
    other = raw[:at] + expected[at:at + 2] + raw[at + 2:]
    if packets.same(other, expected):
        chosen[expected[at:at + 2]] = raw[at:at + 2]
        return other
    return raw


def expect_packets(sock, name, expected):
    """Theirs may be several packets in a row."""
    while expected:
        start = 1 + next((place for place, byte in enumerate(expected[1:5], 1) if byte < 128), 4)
        end = start + sum((byte & 127) << 7 * place for place, byte in enumerate(expected[1:start]))
        if end >= len(expected):
            break
        expect_packet(sock, name, expected[:end])
        expected = expected[end:]
    return expect_packet(sock, name, expected)


def expect_packet(sock, name, expected):
    kept = held.setdefault(id(sock), [])
    for raw in kept if expected else ():
        if packets.same(renumbered(sock, raw, expected), expected):
            kept.remove(raw)
            return True
    while True:
        try:
            raw = packet(sock)
        except TimeoutError:
            raw = b""
        if raw and packets.is_wrong_for_all(raw):
            if not expected or script.name in WANT_CLOSED:
                raise BrokenPipeError(f"refused by {raw.hex()}")
            if expected[0] >> 4 == packets.DISCONNECT and expected[2:3] >= b"\x80":
                return True
        if raw and expected:
            raw = renumbered(sock, raw, expected)
            if packets.same(raw, expected):
                return True
        is_publish, wants_publish = (one[:1] and one[0] >> 4 == packets.PUBLISH for one in (raw, expected))
        if not raw or not expected or is_publish == wants_publish or len(kept) == HELD_MAX:
            if raw and packets.is_wrong_for_all(raw):
                raise BrokenPipeError(f"refused by {raw.hex()}")
            mosq_test.packet_matches(name, raw, expected)
            raise mosq_test.TestError
        kept.append(raw)


def receive_unordered(sock, first, second, error_string):
    expect_packet(sock, error_string, first)
    expect_packet(sock, error_string, second)


socket.socket = Socket
mosq_test.expect_packet = expect_packets
mosq_test.receive_unordered = receive_unordered
sys.argv = sys.argv[1:]
runpy.run_path(str(script), run_name="__main__")
