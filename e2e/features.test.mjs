// What the SDK can ask of a subscription, and what the server API does to its connections from another node.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Centrifuge } from 'centrifuge';
import { Centrifuge as ProtobufCentrifuge } from 'centrifuge/build/protobuf';
import { WebSocket } from 'ws';

import { connectionToken, ENGINES, next, Server, uniqueName, until } from './tidewire.mjs';

const ENCODINGS = [
  { name: 'JSON', Client: Centrifuge, decode: (data) => data },
  { name: 'Protobuf', Client: ProtobufCentrifuge, decode: (data) => JSON.parse(new TextDecoder().decode(data)) },
];
const SHARED = ENGINES.filter(({ name }) => name === 'redis' || name === 'cluster');

function connect(t, server, user, { Client = Centrifuge, ...options } = {}) {
  const client = new Client(server.websocketUrl, {
    websocket: WebSocket,
    token: connectionToken(user),
    minReconnectDelay: 50,
    maxReconnectDelay: 200,
    ...options,
  });
  t.after(() => client.disconnect());
  return client;
}

/** Subscribes a client and connects it; resolves when the subscription stands. */
async function enter(client, channel, subscription = client.newSubscription(channel)) {
  subscription.subscribe();
  const subscribed = next(subscription, 'subscribed');
  client.connect();
  await subscribed;
}

/** A subscriber that notes who comes, as `+user`, and who goes, as `-user`. */
async function watch(t, server, channel) {
  const client = connect(t, server, 'watcher');
  const moves = [];
  const subscription = client.newSubscription(channel, { joinLeave: true });
  subscription.on('join', ({ info }) => moves.push(`+${info.user}`));
  subscription.on('leave', ({ info }) => moves.push(`-${info.user}`));
  await enter(client, channel, subscription);
  return { subscription, moves };
}

/** The n-th state of a document that changes little by little. */
function document(n) {
  return { title: 'Überschrift \u{1F30A}', lines: Array.from({ length: 40 }, (_, index) => `line ${index}${index === n ? ' is new' : ''}`), n };
}

for (const { name, Client, decode } of ENCODINGS) {
  test(`${name}: what changes little travels as a delta, over a reconnect too`, async (t) => {
    const server = await Server.start(t, { engine: 'memory:' });
    const channel = uniqueName('delta');
    const sizes = [];
    class Watched extends WebSocket {
      constructor(...options) {
        super(...options);
        this.on('message', (message) => sizes.push(message.byteLength ?? message.length));
      }
    }
    const client = connect(t, server, 'alice', { Client, websocket: Watched });
    const subscription = client.newSubscription(channel, { delta: 'fossil', recoverable: true, positioned: true });
    const received = [];
    subscription.on('publication', ({ data }) => received.push(decode(data)));
    subscription.subscribe();
    const subscribed = next(subscription, 'subscribed');
    client.connect();
    await subscribed;
    const publish = async (from, to) => {
      for (let n = from; n < to; n += 1) await server.api('publish', { channel, data: document(n) });
    };
    await publish(0, 10);
    await until('ten publications', () => received.length === 10);
    const whole = JSON.stringify(document(0)).length;
    assert.ok(sizes.filter((size) => size < whole / 2).length >= 9, `frames of ${sizes}, whole ones are ${whole}`);

    const away = next(client, 'disconnected');
    client.disconnect();
    await away;
    await publish(10, 15);
    const again = next(subscription, 'subscribed');
    client.connect();
    assert.equal((await again).recovered, true);
    await publish(15, 20);
    await until('twenty publications', () => received.length === 20);
    assert.deepEqual(received, Array.from({ length: 20 }, (_, n) => document(n)));
  });

  test(`${name}: a filter on tags lets through what it admits, live and recovered`, async (t) => {
    const server = await Server.start(t, { engine: 'memory:' });
    const channel = uniqueName('filter');
    const client = connect(t, server, 'alice', { Client });
    const subscription = client.newSubscription(channel, {
      tagsFilter: { op: 'or', nodes: [{ key: 'kind', cmp: 'eq', val: 'goal' }, { key: 'minute', cmp: 'gte', val: '90' }] },
      recoverable: true,
      positioned: true,
    });
    const received = [];
    subscription.on('publication', ({ data }) => received.push(decode(data)));
    subscription.subscribe();
    const subscribed = next(subscription, 'subscribed');
    client.connect();
    await subscribed;
    const publish = async (offset) => {
      await server.api('publish', { channel, data: offset + 1, tags: { kind: 'goal', minute: '3' } });
      await server.api('publish', { channel, data: offset + 2, tags: { kind: 'foul', minute: '4' } });
      await server.api('publish', { channel, data: offset + 3, tags: { kind: 'foul', minute: '91.5' } });
      await server.api('publish', { channel, data: offset + 4 });
      await server.api('publish', { channel, data: offset + 5, tags: { kind: 'goal', minute: '92' } });
    };
    await publish(0);
    await until('three publications', () => received.length === 3);
    const away = next(client, 'disconnected');
    client.disconnect();
    await away;
    await publish(10);
    const again = next(subscription, 'subscribed');
    client.connect();
    assert.equal((await again).recovered, true);
    await publish(20);
    await until('nine publications', () => received.length >= 9);
    assert.deepEqual(received, [1, 3, 5, 11, 13, 15, 21, 23, 25]);
  });
}

for (const engine of SHARED) {
  test(`${engine.name}: what the server API does reaches connections of every node`, async (t) => {
    const url = engine.url(t);
    const holder = await Server.start(t, { engine: url, name: 'holder' });
    const other = await Server.start(t, { engine: url, name: 'other' });
    const [channel, user] = [uniqueName('everywhere'), uniqueName('user')];
    const client = connect(t, holder, user);
    const published = [];
    client.on('publication', ({ data }) => published.push(data));
    const connected = next(client, 'connected');
    client.connect();
    await connected;

    const subscribed = next(client, 'subscribed');
    await other.api('subscribe', { user, channel, data: { from: 'us' } });
    const { channel: name, recoverable, data } = await subscribed;
    assert.deepEqual({ name, recoverable, data }, { name: channel, recoverable: true, data: { from: 'us' } });
    await other.api('publish', { channel, data: 1 });
    await until('a publication', () => published.length === 1);

    const { channels } = await other.api('channels', { pattern: `${channel}*` });
    assert.deepEqual(channels, { [channel]: { num_clients: 1 } });
    const { nodes } = await other.api('info', {});
    assert.ok(nodes.length >= 2, `nodes: ${JSON.stringify(nodes)}`);

    const unsubscribed = next(client, 'unsubscribed');
    await other.api('unsubscribe', { user, channel });
    await unsubscribed;
    const disconnected = next(client, 'disconnected');
    await other.api('disconnect', { user, disconnect: { code: 4500, reason: 'bye' } });
    const { code, reason } = await disconnected;
    assert.deepEqual({ code, reason }, { code: 4500, reason: 'bye' });
  });
}

for (const engine of ENGINES) {
  test(`${engine.name}: presence, and who comes and goes`, async (t) => {
    const server = await Server.start(t, { engine: engine.url(t) });
    const channel = uniqueName('room');
    const { subscription, moves } = await watch(t, server, channel);
    const guest = connect(t, server, 'guest');
    await enter(guest, channel);
    const { clients } = await subscription.presence();
    assert.deepEqual(Object.values(clients).map(({ user }) => user).sort(), ['guest', 'watcher']);
    assert.deepEqual(await subscription.presenceStats(), { numClients: 2, numUsers: 2 });
    guest.disconnect();
    await until('the guest has left', () => moves.includes('-guest'));
    assert.deepEqual(moves, ['+watcher', '+guest', '-guest']);
    assert.deepEqual(await subscription.presenceStats(), { numClients: 1, numUsers: 1 });
  });
}

for (const engine of SHARED) {
  test(`${engine.name}: those on a node that is killed are gone within two seconds`, async (t) => {
    const url = engine.url(t);
    const stays = await Server.start(t, { engine: url, name: 'stays' });
    const dies = await Server.start(t, { engine: url, name: 'dies' });
    const channel = uniqueName('room');
    const { subscription, moves } = await watch(t, stays, channel);
    const users = Array.from({ length: 20 }, (_, index) => `guest-${index}`);
    for (const user of users) {
      await enter(connect(t, dies, user, { minReconnectDelay: 60_000 }), channel);
    }
    assert.deepEqual(await subscription.presenceStats(), { numClients: 21, numUsers: 21 });
    await dies.kill();
    const killed = Date.now();
    await until('all have left', async () => (await subscription.presenceStats()).numClients === 1);
    await until('all leaves are told', () => moves.filter((move) => move.startsWith('-')).length === users.length);
    t.diagnostic(`gone and told after ${Date.now() - killed} ms`);
    assert.deepEqual(moves.filter((move) => move.startsWith('-')).sort(), users.map((user) => `-${user}`).sort());
  });
}
