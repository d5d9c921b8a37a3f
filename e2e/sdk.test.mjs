// The published JavaScript SDK, unchanged, against the binary on every engine, with `kill -9` in the middle.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as after } from 'node:timers/promises';

import { Centrifuge } from 'centrifuge';
import { WebSocket } from 'ws';

import { connectionToken, ENGINES, gate, next, Server, uniqueName, until } from './tidewire.mjs';

/** A client that is closed with the test; `options` are the SDK's. */
function connect(t, server, options = {}) {
  const client = new Centrifuge(server.websocketUrl, {
    websocket: WebSocket,
    token: connectionToken('alice'),
    minReconnectDelay: 50,
    maxReconnectDelay: 200,
    ...options,
  });
  t.after(() => client.disconnect());
  return client;
}

/** A subscription and, in `received`, what it has published so far, in the order of arrival. */
function subscribe(client, channel) {
  const subscription = client.newSubscription(channel, { recoverable: true, positioned: true });
  const received = [];
  subscription.on('publication', ({ data, offset }) => received.push({ data, offset }));
  subscription.subscribe();
  return { subscription, received };
}

/** Waits for as many as expected, then compares all: what is missing, came twice or out of order shows. */
async function expectReceived(received, expected) {
  await until(`${expected.length} publications`, () => received.length >= expected.length).catch(() => {});
  assert.deepEqual(received.map(({ data }) => data), expected);
}

function assertContiguous(received) {
  const first = received[0].offset;
  assert.deepEqual(received.map(({ offset }) => offset), received.map((_, index) => first + index));
}

for (const engine of ENGINES) {
  test(`${engine.name}: subscribes, receives, publishes, reads history, unsubscribes`, async (t) => {
    const server = await Server.start(t, { engine: engine.url(t) });
    const channel = uniqueName('tour');
    const client = connect(t, server);
    const connected = next(client, 'connected');
    client.connect();
    assert.ok((await connected).client, 'the connection has an id');

    const { subscription, received } = subscribe(client, channel);
    const { recoverable, positioned, streamPosition } = await next(subscription, 'subscribed');
    assert.deepEqual({ recoverable, positioned }, { recoverable: true, positioned: true });
    assert.equal(streamPosition.offset, 0);
    assert.ok(streamPosition.epoch);

    const appended = await server.api('publish', { channel, data: { n: 1 } });
    assert.deepEqual(appended, { offset: 1, epoch: streamPosition.epoch });
    await subscription.publish({ n: 2 });
    await server.api('publish', { channel, data: { text: 'ü "quoted" \n \u2028 \u{1F30A}' } });
    const everything = [{ n: 1 }, { n: 2 }, { text: 'ü "quoted" \n \u2028 \u{1F30A}' }];
    await expectReceived(received, everything);
    assert.deepEqual(received.map(({ offset }) => offset), [1, 2, 3]);

    const history = await subscription.history({ limit: 10 });
    assert.deepEqual(history.publications.map(({ data }) => data), everything);
    assert.deepEqual({ offset: history.offset, epoch: history.epoch }, { offset: 3, epoch: streamPosition.epoch });
    const since = { offset: 1, epoch: streamPosition.epoch };
    const page = await subscription.history({ limit: 1, since });
    assert.deepEqual(page.publications.map(({ offset }) => offset), [2]);
    const newest = await subscription.history({ limit: 2, reverse: true });
    assert.deepEqual(newest.publications.map(({ offset }) => offset), [3, 2]);
    const top = await subscription.history({ limit: 0 });
    assert.deepEqual([top.publications, top.offset], [[], 3]);

    subscription.unsubscribe();
    // A second subscriber's receipt shows that the event went out, so that silence here means something.
    const witness = connect(t, server, { token: connectionToken('bob') });
    const seen = subscribe(witness, channel);
    const subscribed = next(seen.subscription, 'subscribed');
    witness.connect();
    await subscribed;
    await server.api('publish', { channel, data: { n: 4 } });
    await expectReceived(seen.received, [{ n: 4 }]);
    assert.equal(received.length, 3, 'nothing arrives after unsubscribe');
  });

  test(`${engine.name}: reconnects after kill -9 and ${engine.keeps ? 'recovers' : 'is told of the loss'}`, async (t) => {
    const server = await Server.start(t, { engine: engine.url(t) });
    const channel = uniqueName('kill');
    // The SDK asks for its data before each attempt to connect, so this holds the client away.
    let mayConnect = gate();
    mayConnect.open();
    const client = connect(t, server, { getData: () => mayConnect.opened.then(() => ({})) });
    const { subscription, received } = subscribe(client, channel);
    const subscribed = next(subscription, 'subscribed');
    client.connect();
    const before = (await subscribed).streamPosition;
    await server.api('publish', { channel, data: { n: 0 } });
    await expectReceived(received, [{ n: 0 }]);

    mayConnect = gate();
    const lost = next(client, 'connecting');
    await server.kill();
    await lost;
    await server.restart();
    const missed = Array.from({ length: 100 }, (_, index) => ({ n: index + 1 }));
    for (const data of missed) {
      await server.api('publish', { channel, data });
    }
    const resubscribed = next(subscription, 'subscribed');
    mayConnect.open();
    const { wasRecovering, recovered, streamPosition } = await resubscribed;

    assert.deepEqual({ wasRecovering, recovered }, { wasRecovering: true, recovered: engine.keeps });
    if (!engine.keeps) {
      assert.notEqual(streamPosition.epoch, before.epoch, 'a new epoch says that history was lost');
      await server.api('publish', { channel, data: { n: 101 } });
      await expectReceived(received, [{ n: 0 }, { n: 101 }]);
      return;
    }
    assert.equal(streamPosition.epoch, before.epoch);
    await server.api('publish', { channel, data: { n: 101 } });
    await expectReceived(received, [{ n: 0 }, ...missed, { n: 101 }]);
    assertContiguous(received);
  });

  if (engine.keeps) {
    test(`${engine.name}: a publisher that repeats itself over kills keeps each event once`, async (t) => {
      const server = await Server.start(t, { engine: engine.url(t) });
      const channel = uniqueName('repeat');
      const client = connect(t, server);
      const { subscription, received } = subscribe(client, channel);
      const subscribed = next(subscription, 'subscribed');
      client.connect();
      await subscribed;

      const events = Array.from({ length: 200 }, (_, n) => ({ n }));
      for (const data of events) {
        // Each kill meets its append a little later: before it is sent, on its way, kept but not confirmed, confirmed.
        const killed = data.n % 20 === 10 ? killAndRestart(server, data.n / 40) : Promise.resolve();
        const body = { channel, data, idempotency_key: `${channel}-${data.n}` };
        const position = await appendUntilConfirmed(server, body);
        await killed;
        assert.deepEqual(await server.api('publish', body), position, 'a repeat has the first one\'s position');
      }
      await expectReceived(received, events);
      assertContiguous(received);
    });
  }
}

async function killAndRestart(server, afterMs) {
  await after(afterMs);
  await server.kill();
  await server.restart();
}

async function appendUntilConfirmed(server, body) {
  let position;
  let last;
  const attempt = async () => {
    position = await server.api('publish', body).catch((error) => {
      last = error;
    });
    return position !== undefined;
  };
  await until('confirmed append', attempt, () => String(last));
  return position;
}
