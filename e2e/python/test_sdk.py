"""The published Python SDK, unchanged, against the binary on every engine and in both encodings, with `kill -9` in the middle."""

import asyncio
import contextlib
import dataclasses
import json
import unittest
from collections.abc import Callable
from typing import Any

import centrifuge
from centrifuge import Client, ClientState, ReplyError, StreamPosition, Subscription

from tidewire import ENGINES, Engine, Server, connection_token, soon, unique_name

# What the SDK tells of in numbers that it does not export.
TRANSPORT_CLOSED = 1
CONNECT_ERROR = 13

AWKWARD = {"text": 'ü "quoted" \n \u2028 \U0001f30a'}


@dataclasses.dataclass
class Wire:
    """An encoding, and what the SDK wants data to be in it."""

    name: str
    use_protobuf: bool
    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]


WIRES = [
    Wire("json", use_protobuf=False, encode=lambda data: data, decode=lambda data: data),
    Wire("protobuf", use_protobuf=True, encode=lambda data: json.dumps(data).encode(), decode=json.loads),
]


class ClientEvents(centrifuge.ClientEventHandler):
    """What a client tells of, in the order in which it does."""

    def __init__(self):
        self.connected, self.connecting, self.disconnected, self.errors = (asyncio.Queue() for _ in range(4))

    async def on_connected(self, ctx):
        self.connected.put_nowait(ctx)

    async def on_connecting(self, ctx):
        self.connecting.put_nowait(ctx)

    async def on_disconnected(self, ctx):
        self.disconnected.put_nowait(ctx)

    async def on_error(self, ctx):
        self.errors.put_nowait(ctx)


class SubscriptionEvents(centrifuge.SubscriptionEventHandler):
    """What a subscription tells of, in the order in which it does."""

    def __init__(self):
        self.subscribed, self.unsubscribed, self.publications = (asyncio.Queue() for _ in range(3))

    async def on_subscribed(self, ctx):
        self.subscribed.put_nowait(ctx)

    async def on_unsubscribed(self, ctx):
        self.unsubscribed.put_nowait(ctx)

    async def on_publication(self, ctx):
        self.publications.put_nowait(ctx.pub)


class SdkTest(unittest.IsolatedAsyncioTestCase):
    """What the tests have in common: clients of one encoding."""

    engine: Engine
    wire: Wire

    def server(self) -> contextlib.AbstractAsyncContextManager[Server]:
        return Server.started(self.engine.url(self))

    def client(self, server: Server, **options) -> tuple[Client, ClientEvents]:
        """A client that is closed with the test; `options` are the SDK's."""
        events = ClientEvents()
        options = {
            "use_protobuf": self.wire.use_protobuf,
            "timeout": 30,
            "min_reconnect_delay": 0.05,
            "max_reconnect_delay": 0.2,
            "proxy": None,
            **options,
        }
        client = Client(server.websocket_url, events=events, **options)
        self.addAsyncCleanup(client.disconnect)
        return client, events

    async def subscribe(self, client: Client, channel: str) -> tuple[Subscription, SubscriptionEvents]:
        events = SubscriptionEvents()
        subscription = client.new_subscription(channel, events=events, recoverable=True, positioned=True)
        await subscription.subscribe()
        return subscription, events

    def read(self, publications) -> list:
        return [self.wire.decode(publication.data) for publication in publications]

    async def assert_received(self, events: SubscriptionEvents, expected: list, first_offset: int = 1) -> None:
        """Waits for as many as expected, then compares all: what is missing, came twice or out of order shows."""
        received = []
        with contextlib.suppress(asyncio.TimeoutError):
            while len(received) < len(expected):
                received.append(await soon(events.publications.get()))
        self.assertEqual(self.read(received), expected)
        offsets = range(first_offset, first_offset + len(expected))
        self.assertEqual([publication.offset for publication in received], list(offsets))
        self.assertTrue(events.publications.empty())


class EveryEngine:
    """The tests that run on every engine in every encoding."""

    async def test_subscribes_publishes_reads_history_and_unsubscribes(self):
        async with self.server() as server:
            channel = unique_name("tour")
            client, events = self.client(server, token=connection_token("alice"))
            await client.connect()
            self.assertTrue((await soon(events.connected.get())).client, "the connection has an id")

            subscription, seen = await self.subscribe(client, channel)
            subscribed = await soon(seen.subscribed.get())
            self.assertTrue(subscribed.recoverable and subscribed.positioned)
            epoch = subscribed.stream_position.epoch
            self.assertTrue(epoch)
            self.assertEqual(subscribed.stream_position, StreamPosition(0, epoch))

            appended = await server.api("publish", channel=channel, data={"n": 1})
            self.assertEqual(appended, {"offset": 1, "epoch": epoch})
            await subscription.publish(self.wire.encode({"n": 2}))
            await server.api("publish", channel=channel, data=AWKWARD)
            await self.assert_received(seen, [{"n": 1}, {"n": 2}, AWKWARD])

            history = await subscription.history(limit=10)
            self.assertEqual(self.read(history.publications), [{"n": 1}, {"n": 2}, AWKWARD])
            self.assertEqual((history.offset, history.epoch), (3, epoch))

            async def offsets(**options) -> list[int]:
                page = await subscription.history(**options)
                self.assertEqual((page.offset, page.epoch), (3, epoch))
                return [publication.offset for publication in page.publications]

            self.assertEqual(await offsets(limit=1, since=StreamPosition(1, epoch)), [2])
            self.assertEqual(await offsets(limit=2, reverse=True), [3, 2])
            self.assertEqual(await offsets(limit=10, since=StreamPosition(3, epoch), reverse=True), [2, 1])
            self.assertEqual(await offsets(limit=0), [])

            with self.assertRaises(ReplyError) as refused:
                await client.rpc("none", self.wire.encode({}))
            self.assertEqual(refused.exception.code, 108)

            await subscription.unsubscribe()
            await soon(seen.unsubscribed.get())
            # A second subscriber's receipt shows that the event went out, so that silence here means something.
            witness, _ = self.client(server, token=connection_token("bob"))
            await witness.connect()
            _, witnessed = await self.subscribe(witness, channel)
            await soon(witnessed.subscribed.get())
            await server.api("publish", channel=channel, data={"n": 4})
            await self.assert_received(witnessed, [{"n": 4}], first_offset=4)
            self.assertTrue(seen.publications.empty(), "nothing arrives after unsubscribe")

    async def test_recovers_all_that_was_published_while_it_was_away(self):
        async with self.server() as server:
            channel = unique_name("away")
            client, events = self.client(server, token=connection_token("alice"))
            await client.connect()
            _, seen = await self.subscribe(client, channel)
            position = (await soon(seen.subscribed.get())).stream_position
            await server.api("publish", channel=channel, data={"n": 1})
            await self.assert_received(seen, [{"n": 1}])

            await client.disconnect()
            await soon(events.disconnected.get())
            # More than one frame holds.
            missed = [{"n": n} for n in range(2, 302)]
            for data in missed:
                await server.api("publish", channel=channel, data=data)
            await client.connect()
            again = await soon(seen.subscribed.get())
            self.assertEqual((again.was_recovering, again.recovered), (True, True))
            self.assertEqual(again.stream_position.epoch, position.epoch)
            await server.api("publish", channel=channel, data={"n": 302})
            await self.assert_received(seen, [*missed, {"n": 302}], first_offset=2)

    async def test_reconnects_after_kill_9_and_recovers_or_is_told_of_the_loss(self):
        async with self.server() as server:
            channel = unique_name("kill")
            # The SDK asks for a token before it connects where it has none, so this holds the client away.
            may_connect = asyncio.Event()
            may_connect.set()

            async def get_token() -> str:
                await may_connect.wait()
                return connection_token("alice")

            client, events = self.client(server, get_token=get_token)
            await client.connect()
            await soon(events.connecting.get())
            _, seen = await self.subscribe(client, channel)
            before = (await soon(seen.subscribed.get())).stream_position
            await server.api("publish", channel=channel, data={"n": 0})
            await self.assert_received(seen, [{"n": 0}])

            may_connect.clear()
            client.set_token("")
            await server.kill()
            self.assertEqual((await soon(events.connecting.get())).code, TRANSPORT_CLOSED)
            await server.restart()
            missed = [{"n": n} for n in range(1, 101)]
            for data in missed:
                await server.api("publish", channel=channel, data=data)
            may_connect.set()
            again = await soon(seen.subscribed.get())
            self.assertEqual((again.was_recovering, again.recovered), (True, self.engine.keeps))
            await server.api("publish", channel=channel, data={"n": 101})
            if self.engine.keeps:
                self.assertEqual(again.stream_position.epoch, before.epoch)
                await self.assert_received(seen, [*missed, {"n": 101}], first_offset=2)
            else:
                self.assertNotEqual(again.stream_position.epoch, before.epoch, "a new epoch says that history was lost")
                await self.assert_received(seen, [{"n": 101}], first_offset=101)

    async def test_asks_for_a_token_when_its_own_is_expired(self):
        async with self.server() as server:
            asked = 0

            async def get_token() -> str:
                nonlocal asked
                asked += 1
                return connection_token("alice")

            client, events = self.client(server, token=connection_token("alice", valid_s=-60), get_token=get_token)
            await client.connect()
            refused = await soon(events.errors.get())
            self.assertEqual((refused.code, refused.error.code), (CONNECT_ERROR, 109))
            await soon(events.connected.get())
            self.assertEqual(asked, 1)


class EveryWire:
    """The tests in which the engine has no part."""

    async def test_refreshes_its_token_in_time_and_stays_connected(self):
        async with self.server() as server:
            refreshed = asyncio.Event()

            async def get_token() -> str:
                if client.state is not ClientState.CONNECTED:
                    return connection_token("alice", valid_s=3)
                refreshed.set()
                return connection_token("alice")

            client, events = self.client(server, get_token=get_token)
            await client.connect()
            connected = await soon(events.connected.get())
            await soon(refreshed.wait())
            # Answered after the refresh, which ends the connection if it is refused.
            await client.history(unique_name("refresh"))
            self.assertEqual((client.state, client.client_id), (ClientState.CONNECTED, connected.client))
            self.assertTrue(events.disconnected.empty())


# In lower case as in the names of the tests in Node, so that one pattern finds both.
for wire in WIRES:
    for engine in ENGINES:
        name = f"{engine.name}_{wire.name}"
        globals()[name] = type(name, (EveryEngine, SdkTest), {"engine": engine, "wire": wire})
    name = f"refresh_{wire.name}"
    globals()[name] = type(name, (EveryWire, SdkTest), {"engine": ENGINES[0], "wire": wire})
