"""A client of WebSockets over HTTP/3 by aioquic: python3 http3_websocket.py ADDRESS PORT CA

Frames of RFC 6455 are written here. Says what came of each step as a line of JSON."""

import asyncio
import json
import ssl
import struct
import sys

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, StreamReset

ADDRESS, PORT, CA = sys.argv[1], int(sys.argv[2]), sys.argv[3]

TEXT, BINARY, CLOSE = 1, 2, 8


def masked(opcode, payload):
    """A whole message of a client, masked by zeros (RFC 6455 section 5.3)."""
    head = bytes([0x80 | opcode])
    if len(payload) < 126:
        head += bytes([0x80 | len(payload)])
    elif len(payload) < 1 << 16:
        head += bytes([0x80 | 126]) + struct.pack("!H", len(payload))
    else:
        head += bytes([0x80 | 127]) + struct.pack("!Q", len(payload))
    return head + bytes(4) + payload


class Socket:
    def __init__(self, client, stream):
        self.client, self.stream = client, stream
        self.status = asyncio.get_running_loop().create_future()
        self.octets, self.ended = bytearray(), False
        self.news = asyncio.Event()

    def take(self, event):
        if isinstance(event, HeadersReceived):
            self.status.set_result(int(dict(event.headers)[b":status"]))
        elif isinstance(event, DataReceived):
            self.octets += event.data
        self.ended |= event.stream_ended
        self.news.set()

    def send(self, opcode, payload, end=False):
        self.client.http.send_data(self.stream, masked(opcode, payload), end_stream=end)
        self.client.transmit()

    async def exactly(self, count):
        while len(self.octets) < count:
            self.news.clear()
            await self.news.wait()
        taken, self.octets = self.octets[:count], self.octets[count:]
        return bytes(taken)

    async def message(self):
        """Opcode and payload of a whole message of the server."""
        opcode, length = await self.exactly(2)
        assert opcode & 0x80, "messages in one frame"
        if length == 126:
            (length,) = struct.unpack("!H", await self.exactly(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", await self.exactly(8))
        return opcode & 0x0F, await self.exactly(length)

    async def end(self):
        while not self.ended:
            self.news.clear()
            await self.news.wait()


class Client(QuicConnectionProtocol):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.http = H3Connection(self._quic)
        self.sockets = {}

    def quic_event_received(self, event):
        if isinstance(event, (StreamReset, ConnectionTerminated)):
            say("cut", event=repr(event))
        for part in self.http.handle_event(event):
            if part.stream_id in self.sockets:
                self.sockets[part.stream_id].take(part)

    async def open(self, path):
        stream = self._quic.get_next_available_stream_id()
        socket = self.sockets[stream] = Socket(self, stream)
        head = [
            (b":method", b"CONNECT"),
            (b":protocol", b"websocket"),
            (b":scheme", b"https"),
            (b":authority", b"shop.test"),
            (b":path", path.encode()),
            (b"sec-websocket-version", b"13"),
        ]
        self.http.send_headers(stream, head)
        self.transmit()
        say(path, status=await socket.status)
        return socket


def say(step, **what):
    print(json.dumps({"step": step, **what}), flush=True)


async def main():
    configuration = QuicConfiguration(
        is_client=True, alpn_protocols=["h3"], server_name="shop.test", cafile=CA
    )
    configuration.verify_mode = ssl.CERT_REQUIRED
    async with connect(
        ADDRESS, PORT, configuration=configuration, create_protocol=Client
    ) as client:
        socket = await client.open("/")
        say("settings", connect=client.http.received_settings.get(0x08))
        socket.send(TEXT, b"hello")
        say("text", said=(await socket.message())[1].decode())
        large = bytes(range(250)) * 4000
        socket.send(BINARY, large)
        opcode, payload = await socket.message()
        assert (opcode, payload) == (BINARY, large)
        say("large", length=len(payload))

        quiet = await client.open("/later")
        quiet.send(TEXT, b"3500")
        say("silence", said=(await quiet.message())[1].decode())

        socket.send(CLOSE, struct.pack("!H", 3000) + b"bye", end=True)
        opcode, payload = await socket.message()
        assert opcode == CLOSE
        await socket.end()
        say("own close", code=struct.unpack("!H", payload[:2])[0], ended=socket.ended)

        asked = await client.open("/close/3001")
        opcode, payload = await asked.message()
        assert opcode == CLOSE
        asked.send(CLOSE, payload, end=True)
        await asked.end()
        say("its close", code=struct.unpack("!H", payload[:2])[0])


asyncio.run(asyncio.wait_for(main(), 60))
