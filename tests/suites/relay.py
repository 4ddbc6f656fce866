"""A TCP port that passes everything on over TCP, TLS or WebSocket, for clients that only know TCP.

What comes back comes `LATENCY` later: mqtt5-conformance's client begins to wait for an acknowledgement after it has sent
its packet, and one that was there before that is lost to it.
"""

import asyncio
import base64
import contextlib
import os
import ssl
import threading

PIECE = 65536
LATENCY = 0.01


@contextlib.contextmanager
def relay(running, door):
    """The port to connect to for this door of a server."""
    loop, ready, state = asyncio.new_event_loop(), threading.Event(), {}

    async def serve():
        listener = await asyncio.start_server(lambda *pair: pass_on(running.ports[door], door, *pair), "127.0.0.1", 0)
        state["port"] = listener.sockets[0].getsockname()[1]
        state["end"] = asyncio.Event()
        ready.set()
        await state["end"].wait()
        listener.close()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), daemon=True)
    thread.start()
    ready.wait(10)
    try:
        yield state["port"]
    finally:
        loop.call_soon_threadsafe(state["end"].set)
        thread.join(10)


async def pass_on(port, door, reader, writer):
    context = None
    if door in ("tls", "wss"):
        # Whose certificate it is, is not the question here: the TLS tests ask that.
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    except OSError:
        writer.close()
        return
    with contextlib.suppress(ConnectionError, ssl.SSLError, asyncio.IncompleteReadError):
        if door in ("ws", "wss"):
            await shake_hands(far_reader, far_writer, port)
            ways = [frames_out(reader, far_writer), frames_in(far_reader, writer, far_writer)]
        else:
            ways = [copy(reader, far_writer, 0), copy(far_reader, writer, LATENCY)]
        # Whichever side ends first ends the other.
        tasks = [asyncio.ensure_future(way) for way in ways]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for one in (writer, far_writer):
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            one.close()


async def copy(reader, writer, latency):
    while data := await reader.read(PIECE):
        await asyncio.sleep(latency)
        writer.write(data)
        await writer.drain()


async def shake_hands(reader, writer, port):
    key = base64.b64encode(os.urandom(16)).decode()
    writer.write(f"GET /mqtt HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                 f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
                 "Sec-WebSocket-Protocol: mqtt\r\n\r\n".encode())
    answer = await reader.readuntil(b"\r\n\r\n")
    if b" 101 " not in answer.split(b"\r\n")[0]:
        raise ConnectionError(answer.decode(errors="replace"))


def frame(opcode, data):
    """A client's frame (RFC 6455, 5.2), masked with zeros: a mask is due, which one is not."""
    length = len(data)
    if length < 126:
        size = bytes([128 | length])
    elif length < 65536:
        size = bytes([128 | 126]) + length.to_bytes(2, "big")
    else:
        size = bytes([128 | 127]) + length.to_bytes(8, "big")
    return bytes([128 | opcode]) + size + bytes(4) + data


async def frames_out(reader, writer):
    while data := await reader.read(PIECE):
        writer.write(frame(2, data))
        await writer.drain()
    writer.write(frame(8, b"\x03\xe8"))
    await writer.drain()


async def frames_in(reader, writer, back):
    while True:
        first, length = await reader.readexactly(2)
        if length == 126:
            length = int.from_bytes(await reader.readexactly(2), "big")
        elif length == 127:
            length = int.from_bytes(await reader.readexactly(8), "big")
        data = await reader.readexactly(length)
        opcode = first & 15
        if opcode == 8:
            return
        if opcode == 9:
            back.write(frame(10, data))
        elif opcode in (0, 2):
            await asyncio.sleep(LATENCY)
            writer.write(data)
            await writer.drain()
