// What a schema marks as personal reaches who it is meant for, and shows nowhere that operators look.

import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';

import { Centrifuge } from 'centrifuge';
import { WebSocket } from 'ws';

import { connectionToken, next, Server, setting, temporaryFolder, until } from './tidewire.mjs';

const KEY = { 'X-API-Key': 'dev-api-key' };
const CHANNEL = 'patients';
const GROUP = 'files';
const SECRET = Buffer.alloc(32, 7).toString('base64');

// Marked: a field of a nested type, the items of a list, a number, and all that is in a map.
const HIDDEN = ['Zoe Hidden', '+49 30 1234567', '98765432', 'zoe@hidden.example'];
const [NAME, PHONE, INSURANCE, MAIL] = HIDDEN;

const CATALOG = {
  catalog: 1,
  events: [
    {
      type: 'patient.seen',
      version: 1,
      channel: CHANNEL,
      schema: {
        type: 'object',
        required: ['id', 'person'],
        properties: {
          id: { type: 'integer', 'x-key': true },
          person: { $ref: '#/$defs/Person' },
          phones: { type: 'array', items: { type: 'string', maxLength: 32, 'x-redact': true } },
          insurance: { type: 'integer', minimum: 1, maximum: 99999999, 'x-redact': true },
          mails: { type: 'object', additionalProperties: { type: 'integer' }, 'x-redact': true },
        },
        $defs: {
          Person: { type: 'object', properties: { name: { type: 'string', maxLength: 64, 'x-redact': true } } },
        },
      },
    },
    {
      type: 'patient.paid',
      version: 1,
      channel: CHANNEL,
      signed: true,
      sealed: true,
      schema: { type: 'object', properties: { id: { type: 'integer' }, name: { type: 'string', 'x-redact': true } } },
    },
  ],
};

function seen(id) {
  const data = { id, person: { name: NAME }, phones: [PHONE], insurance: Number(INSURANCE), mails: { [MAIL]: 1 } };
  return { specversion: '1.0', id: `seen-${id}`, source: '/clinic', type: 'patient.seen', data };
}

function paid(id) {
  return { specversion: '1.0', id: `paid-${id}`, source: '/clinic', type: 'patient.paid', data: { id, name: NAME } };
}

/** Events whose marked part is what is wrong, with the place that is told. */
function wrong() {
  const { data } = seen(9);
  const broken = [
    ['/person/name', { ...data, person: { name: [NAME] } }],
    ['/phones/0', { ...data, phones: [PHONE.repeat(4)] }],
    ['/insurance', { ...data, insurance: Number(`${INSURANCE}0`) }],
    ['/insurance', { ...data, insurance: INSURANCE }],
    ['/mails', { ...data, mails: { [MAIL]: NAME } }],
  ];
  return broken.map(([pointer, data], index) => [pointer, { ...seen(9), id: `wrong-${index}`, data }]);
}

async function v1(server, verb, path, body, headers = {}) {
  const response = await fetch(`${server.url}/v1/channels/${CHANNEL}/${path}`, {
    method: verb,
    headers: { ...KEY, ...headers },
    body: body && (typeof body === 'string' ? body : JSON.stringify(body)),
  });
  return { status: response.status, text: await response.text() };
}

function send(server, event) {
  return v1(server, 'POST', 'events', event, { 'Content-Type': 'application/cloudevents+json' });
}

/** A client as a browser has it, and what it has been given. */
async function subscribed(t, server) {
  const client = new Centrifuge(server.websocketUrl, { websocket: WebSocket, token: connectionToken('zoe') });
  t.after(() => client.disconnect());
  const subscription = client.newSubscription(CHANNEL, { recoverable: true });
  const received = [];
  subscription.on('publication', ({ data }) => received.push(data));
  subscription.subscribe();
  const ready = next(subscription, 'subscribed');
  client.connect();
  await ready;
  return received;
}

/** Runs the command line; what it prints, and what it complains of. */
async function cli(server, ...args) {
  const env = { ...process.env, TIDEWIRE_URL: server.url, TIDEWIRE_API_KEY: 'dev-api-key', TIDEWIRE_TOKEN: connectionToken('operator') };
  const { stdout, stderr } = await promisify(execFile)(setting('TIDEWIRE_TEST_BINARY'), args, { env });
  return stdout + stderr;
}

/** A `tidewire tail` that goes on; `text` is what it has printed. */
function tail(t, server, ...args) {
  const env = { ...process.env, TIDEWIRE_URL: server.url, TIDEWIRE_TOKEN: connectionToken('operator') };
  const child = spawn(setting('TIDEWIRE_TEST_BINARY'), ['tail', CHANNEL, ...args], { env });
  const found = { text: '' };
  for (const output of [child.stdout, child.stderr]) {
    output.setEncoding('utf8').on('data', (text) => { found.text += text; });
  }
  t.after(async () => {
    if (child.exitCode === null) {
      child.kill('SIGKILL');
      await once(child, 'exit');
    }
  });
  return found;
}

/** A worker over HTTP that gets the values in clear and quotes them in what it says. */
async function work(server, count) {
  const got = [];
  while (got.length < count) {
    const fetched = await v1(server, 'POST', `groups/${GROUP}/fetch`, { limit: 100, wait_ms: 10_000 });
    assert.equal(fetched.status, 200, fetched.text);
    const { lease, deliveries } = JSON.parse(fetched.text);
    assert.ok(deliveries.length > 0, `${got.length} of ${count} came`);
    const outcomes = deliveries.map(({ id, event }) => {
      const { id: number, person, phones, insurance, mails, name } = event.data;
      const reason = person
        ? `${person.name} (${phones}), insured as ${insurance}, writes as ${JSON.stringify(mails)}`
        : `${name} has no account`;
      const outcome = ['ack', 'reject', 'retry', 'park'][number % 4];
      return { id, outcome, ...(outcome === 'ack' ? {} : { reason }), ...(outcome === 'retry' ? { after_ms: 600_000 } : {}) };
    });
    got.push(...deliveries);
    const settled = await v1(server, 'POST', `groups/${GROUP}/settle`, { lease, outcomes });
    assert.equal(settled.status, 200, settled.text);
  }
  return got;
}

function assertHidden(where, text) {
  for (const value of [...HIDDEN, SECRET]) {
    const line = text.split('\n').find((line) => line.includes(value));
    assert.equal(line, undefined, `${where} shows ${value}`);
  }
}

test('what is marked as personal shows nowhere that operators look', async (t) => {
  const folder = temporaryFolder(t);
  const file = (name, text) => {
    writeFileSync(join(folder, name), text, { mode: 0o600 });
    return join(folder, name);
  };
  const ring = [{ id: 'k', secret: SECRET }];
  const keys = file('keys.json', JSON.stringify({ tenants: { '*': { signing: ring, sealing: ring } } }));
  const events = file('events.json', JSON.stringify(CATALOG));
  const config = file('tidewire.toml', `keys_file = "${keys}"
[log]
events = true
[tenants.default]
events = "${events}"
`);
  const server = await Server.start(t, {
    engine: `file:${join(folder, 'data')}`, config, env: { TIDEWIRE_LOG: 'trace' }, logMax: Infinity,
  });
  const received = await subscribed(t, server);
  const live = [tail(t, server), tail(t, server, '--json')];
  await until('two tails', async () => (await (await fetch(`${server.url}/metrics`)).text()).match(/connections\S* 3\b/));
  const declared = await v1(server, 'PUT', `groups/${GROUP}`, { start: 'earliest' });
  assert.equal(declared.status, 201, declared.text);

  const shown = {};
  for (const [pointer, event] of wrong()) {
    const { status, text } = await send(server, event);
    assert.deepEqual([status, JSON.parse(text).error.pointer], [422, pointer], text);
    shown[`the answer to ${event.id}`] = text;
  }
  const sent = [seen(0), seen(1), seen(2), seen(3), paid(4), paid(5)];
  for (const event of sent) {
    const { status, text } = await send(server, event);
    assert.equal(status, 200, text);
    shown[`the answer to ${event.id}`] = text;
  }
  await until('publications', () => received.length === sent.length);
  assert.deepEqual(received, sent.map(({ data }) => data), 'who subscribes gets all of it');
  assert.deepEqual((await work(server, sent.length)).map(({ event }) => event.data).sort((a, b) => a.id - b.id), received);

  // Data that nobody checked: of a version that is not known, and no JSON at all.
  await server.api('publish', { channel: CHANNEL, data: { end: true } });
  await until('the end of the tails', () => live.every(({ text }) => text.includes('end')));
  live.forEach(({ text }, index) => { shown[`live tail ${index}`] = text; });

  const letters = JSON.parse((await v1(server, 'GET', `groups/${GROUP}/dead-letters`)).text).letters;
  assert.deepEqual(letters.map(({ event }) => event.type).sort(), ['patient.paid', 'patient.seen']);
  const reasons = letters.map(({ reason }) => reason).sort();
  assert.deepEqual(reasons, ['*** (***), insured as ***, writes as {"***":***}', '*** has no account']);
  const { epoch } = await server.api('history', { channel: CHANNEL, limit: 0 });
  const paths = ['', '/dead-letters', '/dead-letters/reasons', '/audit', ...letters.map(({ id }) => `/dead-letters/${id}`)];
  for (const path of paths) {
    shown[path] = (await v1(server, 'GET', `groups/${GROUP}${path}`)).text;
  }
  const commands = [
    ['dead', 'list', CHANNEL, GROUP],
    ['dead', 'reasons', CHANNEL, GROUP],
    ...letters.map(({ id }) => ['dead', 'show', CHANNEL, GROUP, id]),
    ...letters.map(({ event }) => ['trace', CHANNEL, event.id]),
    ['groups', 'show', CHANNEL, GROUP],
    ['groups', 'list', CHANNEL],
    ['tail', CHANNEL, '--from-start', '--count', `${sent.length}`],
    ['tail', CHANNEL, '--since', `${epoch}:1`, '--count', `${sent.length - 1}`],
  ];
  for (const command of commands) {
    for (const options of [[], ['--json']]) {
      const text = await cli(server, ...command, ...options);
      assert.ok(text.length > 0, `${command} prints something`);
      shown[[...command, ...options].join(' ')] = text;
    }
  }
  for (const command of ['tail patients --from-start --count 6', `dead show patients files ${letters[0].id}`]) {
    assert.match(shown[command], /\*\*\*/, command);
  }
  shown['/metrics'] = await (await fetch(`${server.url}/metrics`)).text();
  shown['the log'] = server.log;
  assert.match(server.log, /TRACE/);
  assert.match(server.log, /\*\*\* has no account/, 'reasons are logged');
  for (const [where, text] of Object.entries(shown)) assertHidden(where, text);
});
