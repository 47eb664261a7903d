"""A client of HTTP/3 by aioquic: python3 http3_client.py ADDRESS PORT CA [STEM]

Says what came of each step as a line of JSON. With STEM there is one step, and the certificate
STEM.pem, whose key is STEM.key, is shown where one is asked for."""

import asyncio
import json
import ssl
import sys

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration

ADDRESS, PORT, CA = sys.argv[1], int(sys.argv[2]), sys.argv[3]
STEM = sys.argv[4] if len(sys.argv) > 4 else None


class Client(QuicConnectionProtocol):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.http = H3Connection(self._quic)
        self.replies = {}
        self.waiting = {}

    def quic_event_received(self, event):
        for part in self.http.handle_event(event):
            reply = self.replies.get(part.stream_id)
            if reply is None:
                continue
            if isinstance(part, HeadersReceived):
                reply["heads"].append([[n.decode(), v.decode()] for n, v in part.headers])
            elif isinstance(part, DataReceived):
                reply["length"] += len(part.data)
                reply["text"] += part.data[:60].decode("latin-1") if reply["length"] < 200 else ""
            if part.stream_ended:
                self.waiting.pop(part.stream_id).set_result(reply)

    async def ask(self, method, path, body=b"", more=()):
        stream = self._quic.get_next_available_stream_id()
        self.replies[stream] = {"heads": [], "length": 0, "text": ""}
        self.waiting[stream] = asyncio.get_running_loop().create_future()
        head = [
            (b":method", method.encode()),
            (b":scheme", b"https"),
            (b":authority", b"shop.test"),
            (b":path", path.encode()),
            *more,
        ]
        self.http.send_headers(stream, head, end_stream=not body)
        if body:
            self.http.send_data(stream, body, end_stream=True)
        waiting = self.waiting[stream]
        self.transmit()
        return await asyncio.wait_for(waiting, 20)


def say(step, **what):
    print(json.dumps({"step": step, **what}), flush=True)


def told(reply):
    head = dict(reply["heads"][-1])
    return {"status": int(head[":status"]), "length": reply["length"], "text": reply["text"]}


async def main():
    tickets = []
    configuration = QuicConfiguration(
        is_client=True, alpn_protocols=["h3"], server_name="shop.test", cafile=CA
    )
    configuration.verify_mode = ssl.CERT_REQUIRED

    def opened():
        return connect(
            ADDRESS,
            PORT,
            configuration=configuration,
            create_protocol=Client,
            session_ticket_handler=tickets.append,
        )

    if STEM:
        configuration.load_cert_chain(STEM + ".pem", STEM + ".key")
        async with opened() as client:
            say("get", **told(await client.ask("GET", "/hello")))
        return

    async with opened() as client:
        say("get", **told(await client.ask("GET", "/hello")))
        say("again", **told(await client.ask("GET", "/hello", more=[(b"cookie", b"a=1"), (b"x-long", b"y" * 300)])))
        say("post", **told(await client.ask("POST", "/sum", b"z" * 300_000)))
        say("large", **told(await client.ask("GET", "/large")))
        many = await asyncio.gather(*(client.ask("GET", f"/{n}") for n in range(50)))
        say("many", texts=[reply["text"] for reply in many])
        client.change_connection_id()
        say("other id", **told(await client.ask("GET", "/id")))
        client.request_key_update()
        say("other key", **told(await client.ask("GET", "/key")))

    configuration.session_ticket = tickets[-1]
    async with connect(
        ADDRESS, PORT, configuration=configuration, create_protocol=Client, wait_connected=False
    ) as client:
        early = client.ask("GET", "/early")
        say("early", **told(await early))
        say("taken", early=client._quic.tls.early_data_accepted)


asyncio.run(main())
