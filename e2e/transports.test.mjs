// The published JavaScript SDK, unchanged, over every transport and in both encodings that it has, on every engine.

import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';

import { Centrifuge } from 'centrifuge';
import { Centrifuge as ProtobufCentrifuge } from 'centrifuge/build/protobuf';
import { EventSource } from 'eventsource';
import { WebSocket } from 'ws';

import { connectionToken, ENGINES, next, Server, setting, temporaryFolder, uniqueName, until } from './tidewire.mjs';

const utf8 = { encode: (data) => new TextEncoder().encode(JSON.stringify(data)), decode: (bytes) => JSON.parse(new TextDecoder().decode(bytes)) };
const asIs = { encode: (data) => data, decode: (data) => data };

const JSON_WIRE = { Client: Centrifuge, data: asIs };
const PROTOBUF_WIRE = { Client: ProtobufCentrifuge, data: utf8 };

/** Each way to connect; `via` is the server that commands go to where they go by requests of their own. */
const TRANSPORTS = [
  { name: 'WebSocket, JSON', ...JSON_WIRE, endpoint: websocket },
  { name: 'WebSocket, Protobuf', ...PROTOBUF_WIRE, endpoint: websocket },
  { name: 'SSE', ...JSON_WIRE, endpoint: (server) => ({ transport: 'sse', endpoint: `${server.url}/connection/sse` }) },
  { name: 'HTTP stream, JSON', ...JSON_WIRE, endpoint: httpStream },
  { name: 'HTTP stream, Protobuf', ...PROTOBUF_WIRE, endpoint: httpStream },
];

function websocket(server) {
  return { transport: 'websocket', endpoint: server.websocketUrl };
}

function httpStream(server) {
  return { transport: 'http_stream', endpoint: `${server.url}/connection/http_stream` };
}

/** A client of the transport, closed with the test. */
function connect(t, transport, server, { via = server, ...options } = {}) {
  const client = new transport.Client([transport.endpoint(server)], {
    websocket: WebSocket,
    eventsource: EventSource,
    fetch,
    readableStream: ReadableStream,
    emulationEndpoint: `${via.url}/emulation`,
    token: connectionToken('alice'),
    minReconnectDelay: 50,
    maxReconnectDelay: 200,
    ...options,
  });
  t.after(() => client.disconnect());
  return client;
}

function subscribe(transport, client, channel) {
  const subscription = client.newSubscription(channel, { recoverable: true, positioned: true });
  const received = [];
  subscription.on('publication', ({ data }) => received.push(transport.data.decode(data)));
  subscription.subscribe();
  return { subscription, received };
}

async function expectReceived(received, expected) {
  await until(`${expected.length} publications`, () => received.length >= expected.length).catch(() => {});
  assert.deepEqual(received, expected);
}

for (const engine of ENGINES) {
  for (const transport of TRANSPORTS) {
    test(`${engine.name}, ${transport.name}: the SDK subscribes, publishes, reads history and recovers`, async (t) => {
      const server = await Server.start(t, { engine: engine.url(t) });
      const channel = uniqueName('transport');
      const client = connect(t, transport, server);
      const connected = next(client, 'connected');
      client.connect();
      const { client: id, transport: used } = await connected;
      assert.ok(id);
      assert.equal(used, transport.endpoint(server).transport);

      const { subscription, received } = subscribe(transport, client, channel);
      const { streamPosition } = await next(subscription, 'subscribed');
      const text = { text: 'ü "quoted" \n \u2028 \u{1F30A}' };
      await server.api('publish', { channel, data: { n: 1 } });
      await subscription.publish(transport.data.encode({ n: 2 }));
      await server.api('publish', { channel, data: text });
      await expectReceived(received, [{ n: 1 }, { n: 2 }, text]);
      const history = await subscription.history({ limit: 10, since: streamPosition });
      assert.deepEqual(history.publications.map(({ data }) => transport.data.decode(data)), received);
      await assert.rejects(client.rpc('none', transport.data.encode({})), { code: 108 });

      // Away, while more is published than one frame holds.
      const away = next(client, 'disconnected');
      client.disconnect();
      await away;
      const missed = Array.from({ length: 300 }, (_, index) => ({ n: index + 3 }));
      for (const data of missed) {
        await server.api('publish', { channel, data });
      }
      const again = next(subscription, 'subscribed');
      client.connect();
      assert.equal((await again).recovered, true);
      await server.api('publish', { channel, data: { n: 303 } });
      await expectReceived(received, [{ n: 1 }, { n: 2 }, text, ...missed, { n: 303 }]);
    });
  }

  test(`${engine.name}: both encodings see the same data, each in its own way`, async (t) => {
    const server = await Server.start(t, { engine: engine.url(t) });
    const channel = uniqueName('both');
    const [json, protobuf] = TRANSPORTS;
    const sides = [json, protobuf].map((transport) => {
      const client = connect(t, transport, server);
      client.connect();
      return subscribe({ data: asIs }, client, channel);
    });
    await Promise.all(sides.map(({ subscription }) => next(subscription, 'subscribed')));
    await sides[1].subscription.publish(new Uint8Array([0xff, 0x00]));
    await sides[0].subscription.publish({ n: 1 });
    const [text, bytes] = sides.map(({ received }) => received);
    await until('both have both', () => text.length === 2 && bytes.length === 2);
    assert.deepEqual(text, ['/wA=', { n: 1 }]);
    assert.deepEqual(bytes.map((data) => [...data]), [[0xff, 0x00], [...new TextEncoder().encode('{"n":1}')]]);
  });
}

for (const engine of ENGINES.filter(({ name }) => name === 'redis' || name === 'cluster')) {
  for (const transport of TRANSPORTS.slice(2)) {
    test(`${engine.name}, ${transport.name}: commands reach the connection through any node`, async (t) => {
      const url = engine.url(t);
      const holder = await Server.start(t, { engine: url, name: 'holder' });
      const other = await Server.start(t, { engine: url, name: 'other' });
      const channel = uniqueName('emulation');
      const client = connect(t, transport, holder, { via: other });
      client.connect();
      const { subscription, received } = subscribe(transport, client, channel);
      await next(subscription, 'subscribed');
      await subscription.publish(transport.data.encode({ n: 1 }));
      await other.api('publish', { channel, data: { n: 2 } });
      await expectReceived(received, [{ n: 1 }, { n: 2 }]);
    });
  }
}

for (const transport of TRANSPORTS) {
  test(`TLS, ${transport.name}: the SDK subscribes, publishes and recovers`, async (t) => {
    const config = join(temporaryFolder(t), 'tidewire.toml');
    const files = `cert = "${setting('TIDEWIRE_TEST_CERTIFICATE')}"\nkey = "${setting('TIDEWIRE_TEST_KEY')}"\n`;
    writeFileSync(config, `[tls]\n${files}[websocket]\ncompression = true\n`);
    const server = await Server.start(t, { engine: 'memory:', config });
    assert.match(server.url, /^https:/);
    const channel = uniqueName('tls');
    const client = connect(t, transport, server);
    client.connect();
    const { subscription, received } = subscribe(transport, client, channel);
    await next(subscription, 'subscribed');
    // More than one record of TLS holds, and more than one.
    const large = Array.from({ length: 20 }, (_, n) => ({ n, text: `${n} `.repeat(15_000) }));
    for (const data of large) {
      await subscription.publish(transport.data.encode(data));
    }
    await expectReceived(received, large);
    const away = next(client, 'disconnected');
    client.disconnect();
    await away;
    await server.api('publish', { channel, data: { n: 20 } });
    const again = next(subscription, 'subscribed');
    client.connect();
    assert.equal((await again).recovered, true);
    await expectReceived(received, [...large, { n: 20 }]);
  });
}

test('a WebSocket is compressed where both sides want that', async (t) => {
  const config = join(temporaryFolder(t), 'tidewire.toml');
  writeFileSync(config, '[websocket]\ncompression = true\n');
  const server = await Server.start(t, { engine: 'memory:', config });
  const channel = uniqueName('deflate');
  let extensions;
  class Watched extends WebSocket {
    constructor(...options) {
      super(...options);
      this.on('open', () => { extensions = this.extensions; });
    }
  }
  const [json] = TRANSPORTS;
  const client = connect(t, json, server, { websocket: Watched });
  const { subscription, received } = subscribe(json, client, channel);
  const subscribed = next(subscription, 'subscribed');
  client.connect();
  await subscribed;
  assert.match(extensions, /permessage-deflate/);
  const data = { text: 'the same over and over '.repeat(500) };
  await subscription.publish(data);
  await server.api('publish', { channel, data });
  await expectReceived(received, [data, data]);
});

test('unidirectional connections are told of their session, in three ways', async (t) => {
  const server = await Server.start(t, { engine: 'memory:' });
  const connect = { token: connectionToken('alice') };

  const socket = new WebSocket(server.websocketUrl.replace('websocket', 'uni_websocket'));
  t.after(() => socket.terminate());
  socket.on('open', () => socket.send(JSON.stringify(connect)));
  const [first] = await new Promise((resolve) => socket.once('message', (...message) => resolve(message)));
  assert.ok(JSON.parse(first).connect.client);

  const query = new URLSearchParams({ cf_connect: JSON.stringify(connect) });
  const events = new EventSource(`${server.url}/connection/uni_sse?${query}`);
  t.after(() => events.close());
  const { data } = await new Promise((resolve) => { events.onmessage = resolve; });
  assert.ok(JSON.parse(data).connect.client);

  const controller = new AbortController();
  t.after(() => controller.abort());
  const response = await fetch(`${server.url}/connection/uni_http_stream`, {
    method: 'POST', body: JSON.stringify(connect), signal: controller.signal,
  });
  const { value } = await response.body.getReader().read();
  assert.ok(JSON.parse(new TextDecoder().decode(value)).connect.client);

  const refused = await fetch(`${server.url}/connection/uni_http_stream`, {
    method: 'POST', body: JSON.stringify({ token: 'forged' }),
  });
  assert.deepEqual(JSON.parse(await refused.text()).disconnect, { code: 3500, reason: 'invalid token' });
});
