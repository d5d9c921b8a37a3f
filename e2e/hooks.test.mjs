// Hooks with the published SDK, against the backend that docs/hooks.md shows.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { test } from 'node:test';
import { pathToFileURL } from 'node:url';

import { Centrifuge } from 'centrifuge';
import { Centrifuge as ProtobufCentrifuge } from 'centrifuge/build/protobuf';
import { WebSocket } from 'ws';

import { gate, next, Server, temporaryFolder, until } from './tidewire.mjs';

/** The backend of the page, as it stands there. */
async function backendOfThePage(t) {
  const page = readFileSync(new URL('../docs/hooks.md', import.meta.url), 'utf8');
  const [, source] = /```js\n([\s\S]*?)```/.exec(page);
  const file = join(temporaryFolder(t), 'backend.mjs');
  writeFileSync(file, source);
  const { backend } = await import(pathToFileURL(file));
  return listen(t, backend);
}

async function listen(t, backend) {
  backend.listen(0, '127.0.0.1');
  await once(backend, 'listening');
  t.after(() => {
    backend.closeAllConnections();
    backend.close();
  });
  return `http://127.0.0.1:${backend.address().port}`;
}

/** A server that asks it for all that there is. */
async function serve(t, backend) {
  const config = join(temporaryFolder(t), 'tidewire.toml');
  writeFileSync(config, `
[tenants.default.hooks]
connect = "app"
refresh = "app"
rpc = [{ method = "*", endpoint = "app" }]
send = "app"

[tenants.default.hooks.endpoints.app]
url = "${backend}/hooks/{hook}"
timeout = "10s"
allow_private = true

[[tenants.default.channels]]
pattern = "room:*"
subscribe = "authenticated"
publish = "authenticated"
keep = { events = 100, age = "1h" }
ask = { subscribe = "app", publish = "app" }
`);
  return Server.start(t, { engine: 'memory:', config });
}

function client(t, server, Client, data) {
  const made = new Client(server.websocketUrl, { websocket: WebSocket, data, minReconnectDelay: 50, maxReconnectDelay: 200 });
  t.after(() => made.disconnect());
  return made;
}

const text = (value) => new TextEncoder().encode(JSON.stringify(value));
const ENCODINGS = [
  { name: 'JSON', Client: Centrifuge, encode: (data) => data, decode: (data) => data },
  { name: 'Protobuf', Client: ProtobufCentrifuge, encode: text, decode: (data) => JSON.parse(new TextDecoder().decode(data)) },
];

for (const { name, Client, encode, decode } of ENCODINGS) {
  test(`${name}: the backend of the page says who connects, what is subscribed to, published and returned`, async (t) => {
    const server = await serve(t, await backendOfThePage(t));
    const ann = client(t, server, Client, encode({ name: 'ann' }));
    const connected = next(ann, 'connected');
    ann.connect();
    assert.deepEqual(decode((await connected).data), { hello: 'ann' });

    const { data } = await ann.rpc('add', encode([2, 3]));
    assert.equal(decode(data), 5);
    await assert.rejects(ann.rpc('no', encode([])), { code: 404, message: 'no such method' });

    const own = ann.newSubscription('room:ann');
    const subscribed = next(own, 'subscribed');
    own.subscribe();
    await subscribed;
    const published = next(own, 'publication');
    await own.publish(encode({ text: 'hi' }));
    const publication = await published;
    assert.deepEqual(decode(publication.data), { text: 'hi', seen: true });
    assert.equal(publication.info.user, 'ann');

    const others = ann.newSubscription('room:bob');
    const refused = next(others, 'unsubscribed');
    others.subscribe();
    assert.deepEqual(await refused.then(({ code, reason }) => ({ code, reason })), { code: 403, reason: 'not your room' });

    const nobody = client(t, server, Client, encode({}));
    const gone = next(nobody, 'disconnected');
    nobody.connect();
    assert.deepEqual(await gone.then(({ code, reason }) => ({ code, reason })), { code: 4500, reason: 'who?' });
  });

  test(`${name}: a session is refreshed by the server alone, and a backend that comes back is connected to`, async (t) => {
    const asked = [];
    const sent = gate();
    let isDown = true;
    let isOver = false;
    const inSeconds = (seconds) => Date.now() / 1000 + seconds;
    const backend = createServer(async (request, response) => {
      const body = JSON.parse(Buffer.concat(await request.toArray()));
      const hook = request.url.split('/').pop();
      asked.push(hook);
      if (isDown) {
        response.writeHead(503).end();
        return;
      }
      if (hook === 'send') sent.open(body);
      response.end(JSON.stringify({
        connect: { result: { user: 'ann', expire_at: inSeconds(1) } },
        refresh: isOver ? { result: { expired: true } } : { result: { expire_at: inSeconds(1) } },
      }[hook] ?? {}));
    });
    const server = await serve(t, await listen(t, backend));
    const ann = client(t, server, Client);
    const connected = next(ann, 'connected');
    ann.connect();
    await until('a second attempt', () => asked.length > 1);
    isDown = false;
    await connected;
    let disconnects = 0;
    ann.on('connecting', () => {
      disconnects += 1;
    });
    await ann.send(encode({ n: 1 }));
    const { data, user } = await sent.opened;
    assert.deepEqual({ data, user }, { data: { n: 1 }, user: 'ann' });
    await until('three refreshes', () => asked.filter((hook) => hook === 'refresh').length >= 3);
    assert.equal(disconnects, 0);
    const again = next(ann, 'connecting');
    isOver = true;
    assert.equal((await again).code, 3005);
  });
}
