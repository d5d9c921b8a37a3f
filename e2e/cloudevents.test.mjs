// CloudEvents with the published SDK, unchanged: what it sends is taken, and what we send is valid to it.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { test } from 'node:test';

import { CloudEvent, HTTP } from 'cloudevents';

import { ENGINES, Server, temporaryFolder, uniqueName, until } from './tidewire.mjs';

const KEY = { 'X-API-Key': 'dev-api-key' };
const BATCH = 'application/cloudevents-batch+json';
const SECRET = 'whsec_cmVwbGFjZS1tZS1yZXBsYWNlLW1lLXJlcGxhY2UtbWU=';

const UUID = '01234567-89ab-4def-8123-456789abcdef';
const TIME = '2026-01-31T12:00:00.123Z';

/** Events with ids and data of each kind. */
function events() {
  const common = { source: 'https://erp.example/orders?a=b#c', type: 'order.placed', time: TIME };
  return [
    new CloudEvent({
      ...common,
      id: UUID,
      subject: 'order/7',
      dataschema: 'urn:shop:order:1',
      datacontenttype: 'application/json',
      partitionkey: 'ann',
      correlationid: 'c-1',
      causationid: 'c-0',
      traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
      region: 'eu',
      data: { total: 5, text: 'Zoë "x"', deep: [[{ a: null }]] },
    }),
    new CloudEvent({ ...common, id: 'order-8/not a uuid', datacontenttype: 'application/vnd.shop+json', data: { n: 8 } }),
    new CloudEvent({ ...common, id: 'order-9', datacontenttype: 'text/plain', data: 'Zoë, 100% <b>' }),
    new CloudEvent({ ...common, id: 'order-10', datacontenttype: 'image/png', data: new Uint8Array([0, 255, 10, 13]) }),
    new CloudEvent({ ...common, id: 'order-11' }),
  ];
}

/** What an event says, however its data was carried. */
function told({ data, data_base64: base64, ...attributes }) {
  const bytes = base64 ?? (ArrayBuffer.isView(data) ? Buffer.from(data).toString('base64') : undefined);
  const set = Object.entries(attributes).filter(([, value]) => value !== undefined);
  return { attributes: Object.fromEntries(set), data: bytes ? { bytes } : data };
}

/** Sends what a binding of the SDK made of an event. Its headers are not percent-encoded: that is left to its caller. */
async function send(server, channel, { headers, body }) {
  const encoded = Object.entries(headers).map(([name, value]) =>
    [name, name.startsWith('ce-') ? String(value).replace(/[^!#-$&-~]/gu, encodeURIComponent) : value]);
  const response = await fetch(`${server.url}/v1/channels/${channel}/events`, {
    method: 'POST',
    headers: { ...KEY, ...Object.fromEntries(encoded) },
    body,
  });
  return { status: response.status, body: await response.json() };
}

async function v1(server, verb, path, body) {
  const response = await fetch(`${server.url}/v1/channels/${path}`, {
    method: verb,
    headers: KEY,
    body: body && JSON.stringify(body),
  });
  assert.ok(response.ok, `${verb} ${path} answers ${response.status}`);
  return response.json();
}

/** Every event of a channel, as a group of its own fetches it. */
async function fetched(server, channel, count) {
  const group = `${channel}/groups/${uniqueName('reader')}`;
  await v1(server, 'PUT', group, { start: 'earliest' });
  const found = [];
  while (found.length < count) {
    const { lease, deliveries } = await v1(server, 'POST', `${group}/fetch`, { limit: 100, wait_ms: 10_000 });
    assert.ok(deliveries.length > 0, `${found.length} of ${count} events are there`);
    found.push(...deliveries);
    const outcomes = deliveries.map(({ id }) => ({ id, outcome: 'ack' }));
    await v1(server, 'POST', `${group}/settle`, { lease, outcomes });
  }
  return found.map(({ event }) => event);
}

/** Data as `/v1` and `/api` show it: JSON, text, or base64. */
function shown({ data, data_base64: base64, datacontenttype }) {
  if (data === undefined && base64 === undefined) return '';
  if (datacontenttype === 'image/png') return base64;
  return data;
}

const MODES = {
  structured: (event) => HTTP.structured(event),
  binary: (event) => HTTP.binary(event),
};

for (const engine of ENGINES) {
  test(`${engine.name}: cloudevents that the SDK sends are taken in every mode`, async (t) => {
    const server = await Server.start(t, { engine: engine.url(t) });
    const sent = events();
    for (const mode of [...Object.keys(MODES), 'batched']) {
      const channel = uniqueName(mode);
      let answers;
      if (mode === 'batched') {
        const body = `[${sent.map((event) => HTTP.structured(event).body).join()}]`;
        const { status, body: { events } } = await send(server, channel, { headers: { 'content-type': BATCH }, body });
        assert.equal(status, 200);
        answers = events;
      } else {
        answers = [];
        for (const event of sent) {
          const { status, body } = await send(server, channel, MODES[mode](event));
          assert.equal(status, 200, JSON.stringify(body));
          answers.push(body);
        }
      }
      assert.deepEqual(answers.map(({ id }) => id), sent.map(({ id }) => id));
      assert.deepEqual(answers.map(({ position }) => position.split(':')[1]), ['1', '2', '3', '4', '5']);

      const read = await fetched(server, channel, sent.length);
      for (const [index, event] of sent.entries()) {
        const { attributes } = told(event);
        const { id, type, time, specversion, ...others } = attributes;
        const { originalid, ...found } = read[index].attributes;
        // The SDK says so in binary mode of an event that has no data either.
        if (mode === 'binary' && !event.datacontenttype) others.datacontenttype = 'application/json; charset=utf-8';
        assert.deepEqual([read[index].type, read[index].time, specversion], [type, time, '1.0']);
        assert.deepEqual(found, others);
        assert.equal(originalid ?? read[index].id, id);
        assert.equal(read[index].id, answers[index].event_id ?? id);
        assert.deepEqual(read[index].data, shown(event));
      }
      const { publications } = await server.api('history', { channel, limit: 10 });
      assert.deepEqual(publications.map(({ data }) => data), sent.map(shown));

      const again = await send(server, channel, HTTP.structured(sent[1]));
      assert.deepEqual(again.body, { ...answers[1], duplicate: true });
    }
  });
}

/** A small server that keeps what it is sent. */
async function receiver(t) {
  const got = [];
  const server = createServer(async (request, response) => {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    got.push({ headers: request.headers, body: Buffer.concat(chunks) });
    response.end();
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => {
    server.close();
    server.closeAllConnections();
  });
  return { got, url: `http://127.0.0.1:${server.address().port}/hook` };
}

for (const [mode, body] of [['structured', 'cloud_events'], ['binary', 'cloud_events_binary']]) {
  test(`cloudevents that webhooks send in ${mode} mode are valid to the SDK`, async (t) => {
    const { got, url } = await receiver(t);
    const config = join(temporaryFolder(t), 'tidewire.toml');
    writeFileSync(config, `[[webhooks]]
channel = "orders"
name = "billing"
start = "earliest"
url = "${url}"
secrets = ["${SECRET}"]
body = "${body}"
allow_private = true
`);
    const server = await Server.start(t, { engine: 'memory:', config });
    const sent = events();
    for (const event of sent) {
      const answer = await send(server, 'orders', HTTP.structured(event));
      assert.equal(answer.status, 200, JSON.stringify(answer.body));
    }
    await server.api('publish', { channel: 'orders', data: { ours: true } });
    await until('requests', () => got.length === sent.length + 1, () => `${got.length} came`);

    const received = new Map();
    for (const { headers, body } of got) {
      const isJson = /json/.test(headers['content-type']);
      const bytes = body.length > 0 ? new Uint8Array(body) : undefined;
      const parsed = HTTP.toEvent({ headers: { ...headers }, body: isJson ? body.toString() : bytes });
      // It reads without checking, and leaves headers as they are.
      const decoded = Object.entries(parsed).map(([name, value]) =>
        [name, mode === 'binary' && name !== 'data' && typeof value === 'string' ? decodeURIComponent(value) : value]);
      const event = new CloudEvent(Object.fromEntries(decoded), true);
      assert.ok(event.validate());
      received.set(event.id, { event, body });
    }
    for (const event of sent) {
      const { event: found, body } = received.get(event.id);
      received.delete(event.id);
      const { attributes, data } = told(found);
      const expected = told(event);
      assert.deepEqual(attributes, expected.attributes);
      if (mode === 'binary' && event.datacontenttype === undefined) assert.equal(body.length, 0);
      else if (mode === 'binary' && event.datacontenttype === 'text/plain') assert.equal(body.toString(), event.data);
      else if (mode === 'binary' && event.datacontenttype.endsWith('+json')) assert.deepEqual(JSON.parse(body), event.data);
      else assert.deepEqual(data, expected.data);
    }
    const [{ event: ours }] = received.values();
    assert.deepEqual([ours.type, ours.source, ours.data], ['tidewire.publication', '/default/orders', { ours: true }]);
  });
}
