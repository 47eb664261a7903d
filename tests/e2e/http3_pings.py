"""A client of HTTP/3 by aioquic that sends PINGs and nothing else: python3 http3_pings.py ADDRESS PORT CA

Says as a line of JSON what the connection was closed with."""

import asyncio
import json
import ssl
import sys

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated

ADDRESS, PORT, CA = sys.argv[1], int(sys.argv[2]), sys.argv[3]


class Client(QuicConnectionProtocol):
    closed = None

    def quic_event_received(self, event):
        if isinstance(event, ConnectionTerminated):
            self.closed = event.error_code

    async def flood(self):
        uid = 0
        while self.closed is None:
            for _ in range(50):
                uid += 1
                self._quic.send_ping(uid)
                self.transmit()
            await asyncio.sleep(0.005)
        return uid


async def main():
    configuration = QuicConfiguration(
        is_client=True, alpn_protocols=["h3"], server_name="shop.test", cafile=CA
    )
    configuration.verify_mode = ssl.CERT_REQUIRED
    async with connect(
        ADDRESS, PORT, configuration=configuration, create_protocol=Client
    ) as client:
        count = await client.flood()
        print(json.dumps({"pings": count, "closed": client.closed}), flush=True)


asyncio.run(asyncio.wait_for(main(), 60))
