"""Runs one of mosquitto's broker scripts with another judge of packets: script_main.py SCRIPT PORT...

Their judge compares the bytes that arrive with mosquitto's. This one reads whole packets and compares what they mean:
see `packets.same`. A Packet Identifier that the server chose is its own [MQTT-2.2.1-4]: the script goes on with the one it
wants, and its answers are rewritten. After a packet that refuses the connection or ends it the server must close: that is
waited for. Where the script wants a closed connection, a refusal before that is as good.
"""

import contextlib
import pathlib
import re
import socket
import sys

import packets

script = pathlib.Path(sys.argv[1]).resolve()
sys.path[:0] = [str(script.parent), str(script.parent.parent)]
import mosq_test  # noqa: E402: it is found by the path above

# They take nothing but a closed connection for the answer to a bad Will; the Server MAY send a CONNACK before (4.13.1).
WANT_CLOSED = {"07-will-delay-invalid-573191.py", "07-will-null-topic.py"}
# They want the connection closed for a topic that mosquitto finds too long. It is no Malformed Packet, so that the Reason
# Code of its acknowledgement may refuse it: 0x90 in PUBACK (3.4.2.1), 0x8F or, before MQTT 5.0, 0x80 in SUBACK (3.9.3).
MAY_REFUSE = {"02-subpub-qos0-long-topic.py", "02-subscribe-long-topic.py", "03-publish-long-topic.py"}
# What is changed in a script, and why.
PAUSE_FOR_VALGRIND = ("os.environ.get('MOSQ_USE_VALGRIND') is not None", "True")
EDITS = {
    # A server with threads may take a new connection before it has read the end of an older one: with their own pause.
    "01-connect-global-max-connections.py": [PAUSE_FOR_VALGRIND],
    "01-connect-max-connections.py": [PAUSE_FOR_VALGRIND],
    # 3.1.1: a Will MUST be published unless DISCONNECT came [MQTT-3.1.2-8]; 3.1.4: closing the first connection publishes
    # it in MQTT 5.0 too, there being no Will Delay. These two want none where the Session is kept.
    "07-will-takeover.py": [("do_test(proto_ver=4, clean_session1=False, clean_session2=False)", "pass"),
                            ("do_test(proto_ver=5, clean_session1=False, clean_session2=False)", "pass")],
    # RFC 6454, 6.2: an origin has a scheme.
    "13-websocket-bad-origin.py": [('websockets_origin="example.org"', 'websockets_origin="https://example.org"'),
                                   ("Origin: localhost", "Origin: https://localhost"),
                                   ("Origin: example.org", "Origin: https://example.org")],
    # PROXY protocol, 2.1: a port is 0 to 65,535.
    "21-proxy-v1-bad.py": [(f"do_test(b\"PROXY {family} 192.0.2.5 127.0.0.1 {ports}\\r\\n\"", "(lambda *_: None)(b\"\"")
                           for family in ("TCP4", "TCP6") for ports in ("6275 0", "0 1234")],
    # 2.2: an unspecified family may be accepted, and TLVs be passed over: headers 3, 9 and 11.
    "21-proxy-v2-bad-header.py": [("do_test(proxy_headers)",
                                   "do_test([one for at, one in enumerate(proxy_headers) if at not in (3, 9, 11)])")],
    # 2.2: a receiver that does not serve such a family may use the real address.
    "21-proxy-v2-unix.py": [("/path:0 as", "127.0.0.1: as")],
}
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
    # The answer to a WebSocket's request; no packet of a server begins so, and a short frame (0x82) has a packet's shape.
    if raw == b"HT":
        while not raw.endswith(b"\r\n\r\n"):
            raw += take(sock, 1)
        length = re.search(rb"(?i)^content-length: *(\d+)", raw, re.M)
        return raw + take(sock, int(length[1]) if length else 0)
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
    while expected and not expected.startswith(b"HT"):
        start = 1 + next((place for place, byte in enumerate(expected[1:5], 1) if byte < 128), 4)
        end = start + sum((byte & 127) << 7 * place for place, byte in enumerate(expected[1:start]))
        if end >= len(expected):
            break
        expect_packet(sock, name, expected[:end])
        expected = expected[end:]
    return expect_packet(sock, name, expected)


def same(raw, expected):
    if expected[0] == 0x82:
        return raw[0] == 0x82 and packets.same(raw[2:], expected[2:])
    if expected.startswith(b"HTTP/"):
        status, _, head = raw.partition(b"\r\n")
        lines = {line.lower() for line in head.split(b"\r\n")}
        wanted_status, _, wanted = expected.partition(b"\r\n")
        return status[:12] == wanted_status[:12] and lines >= {line.lower() for line in wanted.split(b"\r\n")}
    return packets.same(raw, expected)


def ends(raw):
    """Whether a server that sends this must close the connection behind it [MQTT-3.2.2-7], [MQTT-3.14.4-1]."""
    if raw.startswith(b"HT"):
        return b" 101 " not in raw.split(b"\r\n")[0]
    kind = raw[0] >> 4
    return kind == packets.DISCONNECT or kind == packets.CONNACK and raw[3] != 0


def expect_end(sock, raw):
    with contextlib.suppress(ConnectionError):
        more = sock.recv(65536)
        if more:
            print(f"FAIL: {more.hex()} behind {raw.hex()}, the end was due")
            raise mosq_test.TestError


def expect_packet(sock, name, expected):
    kept = held.setdefault(id(sock), [])
    for raw in kept if expected else ():
        if same(renumbered(sock, raw, expected), expected):
            kept.remove(raw)
            return True
    while True:
        try:
            raw = packet(sock)
        except TimeoutError:
            raw = b""
        if raw and ends(raw):
            try:
                expect_end(sock, raw)
            except TimeoutError:
                print(f"FAIL: still open after {raw.hex()}")
                raise mosq_test.TestError from None
            if expected and same(raw, expected) and script.name not in WANT_CLOSED:
                return True
            raise BrokenPipeError(f"refused by {raw.hex()}")
        if raw and script.name in MAY_REFUSE and packets.is_wrong_for_all(raw):
            if not expected:
                raise BrokenPipeError(f"refused by {raw.hex()}")
            if expected[0] >> 4 == packets.DISCONNECT and expected[2:3] >= b"\x80":
                return True
        if raw and expected:
            raw = renumbered(sock, raw, expected)
            if same(raw, expected):
                return True
        is_publish, wants_publish = (one[:1] and one[0] >> 4 == packets.PUBLISH for one in (raw, expected))
        if not raw or not expected or is_publish == wants_publish or len(kept) == HELD_MAX:
            mosq_test.packet_matches(name, raw, expected)
            raise mosq_test.TestError
        kept.append(raw)


def receive_unordered(sock, first, second, error_string):
    expect_packet(sock, error_string, first)
    expect_packet(sock, error_string, second)


class Log(str):
    """Our log at debug, asked for mosquitto's lines about PROXY headers: those of ours that say the same."""

    def __contains__(self, wanted):
        if wanted == "Connection rejected, corrupt PROXY header.":
            return re.search(r"a handshake failed .*PROXY protocol header", self) is not None
        client = re.match(r"New client connected from (\S+)", wanted)
        if client is None:
            return super().__contains__(wanted)
        taken = [line.translate({ord("["): None, ord("]"): None}) for line in self.splitlines() if "a handshake is over" in line]
        return any(f"address={client[1]}" in line for line in taken)


def edited():
    """The script's text after `EDITS`, each of which must find its place."""
    text = script.read_text(encoding="utf-8")
    for old, new in EDITS.get(script.name, ()):
        if old not in text:
            sys.exit(f"{script.name} has no {old!r} any more")
        text = text.replace(old, new)
    return text


socket.socket = Socket
mosq_test.expect_packet = expect_packets
mosq_test.receive_unordered = receive_unordered
their_log = mosq_test.broker_log
mosq_test.broker_log = lambda broker: Log(re.sub(r"\x1b\[[0-9;]*m", "", their_log(broker) or ""))
sys.argv = sys.argv[1:]
exec(compile(edited(), script, "exec"), {"__name__": "__main__", "__file__": str(script)})  # noqa: S102: what was asked for
