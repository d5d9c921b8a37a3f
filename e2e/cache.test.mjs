// Channels whose newest event is all that there is to know: who comes gets it, and then what follows.

import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';

import { Centrifuge } from 'centrifuge';
import { Centrifuge as ProtobufCentrifuge } from 'centrifuge/build/protobuf';
import { WebSocket } from 'ws';

import { connectionToken, next, Server, temporaryFolder, uniqueName, until } from './tidewire.mjs';

const ENCODINGS = [
  { name: 'JSON', Client: Centrifuge, decode: (data) => data },
  { name: 'Protobuf', Client: ProtobufCentrifuge, decode: (data) => JSON.parse(new TextDecoder().decode(data)) },
];

async function serverWithCache(t) {
  const folder = temporaryFolder(t);
  const config = join(folder, 'tidewire.toml');
  writeFileSync(config, `
[[tenants.default.channels]]
pattern = "now:*"
subscribe = "anyone"
recovery = "cache"
keep = { events = 10, age = "1h" }
`);
  return Server.start(t, { engine: 'memory:', folder, config });
}

/** What a client is told when its subscription stands. */
function told({ wasRecovering, recovered, hasRecoveredPublications }) {
  return { wasRecovering, recovered, hasRecoveredPublications };
}

for (const { name, Client, decode } of ENCODINGS) {
  for (const delta of [undefined, 'fossil']) {
    test(`${name}${delta ? ', deltas' : ''}: who comes gets the newest event, and then each that follows`, async (t) => {
      const server = await serverWithCache(t);
      const channel = uniqueName('now:playing');
      const song = (n) => ({ title: 'Überschrift '.repeat(30), n });
      const publish = (n) => server.api('publish', { channel, data: song(n) });
      for (let n = 1; n <= 3; n += 1) await publish(n);

      const client = new Client(server.websocketUrl, {
        websocket: WebSocket, token: connectionToken('ann'), minReconnectDelay: 50, maxReconnectDelay: 200,
      });
      t.after(() => client.disconnect());
      const subscription = client.newSubscription(channel, { since: { offset: 0, epoch: '' }, ...(delta ? { delta } : {}) });
      const received = [];
      subscription.on('publication', ({ data }) => received.push(decode(data)));
      subscription.subscribe();
      const subscribed = next(subscription, 'subscribed');
      client.connect();
      assert.deepEqual(told(await subscribed), { wasRecovering: true, recovered: true, hasRecoveredPublications: true });
      await publish(4);
      await publish(5);
      await until('what follows', () => received.length === 3);
      assert.deepEqual(received, [3, 4, 5].map(song));

      // What it missed is not told, but for the newest.
      const away = next(client, 'disconnected');
      client.disconnect();
      await away;
      for (let n = 6; n <= 9; n += 1) await publish(n);
      const again = next(subscription, 'subscribed');
      client.connect();
      assert.equal((await again).recovered, true);
      await publish(10);
      await until('what follows', () => received.length === 5);
      assert.deepEqual(received.slice(3), [9, 10].map(song));
    });
  }

  test(`${name}: who comes before the first event is told that there is none`, async (t) => {
    const server = await serverWithCache(t);
    const channel = uniqueName('now:empty');
    const client = new Client(server.websocketUrl, { websocket: WebSocket, token: connectionToken('ann') });
    t.after(() => client.disconnect());
    const subscription = client.newSubscription(channel, { since: { offset: 0, epoch: '' } });
    const received = [];
    subscription.on('publication', ({ data }) => received.push(decode(data)));
    subscription.subscribe();
    const subscribed = next(subscription, 'subscribed');
    client.connect();
    assert.deepEqual(told(await subscribed), { wasRecovering: true, recovered: false, hasRecoveredPublications: false });
    await server.api('publish', { channel, data: 1 });
    await until('the first event', () => received.length === 1);
    assert.deepEqual(received, [1]);
  });
}
