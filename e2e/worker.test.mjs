// The workers of `examples`, as they are there, over `kill -9` of workers and of the server.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { ENGINES, Server, setting, uniqueName, until } from './tidewire.mjs';

const WORKER = fileURLToPath(new URL('../examples/worker.mjs', import.meta.url));
const GROUP = 'billing';

/** Starts a worker that ends with the test; what it handles is noted in `handled`. */
function work(t, server, channel, handled) {
  const env = { ...process.env, TIDEWIRE_URL: server.url, TIDEWIRE_API_KEY: 'dev-api-key', LEASE_MS: '1500' };
  const worker = spawn(process.execPath, [WORKER, channel, GROUP], { env, stdio: ['ignore', 'pipe', 'ignore'] });
  t.after(() => worker.kill('SIGKILL'));
  createInterface({ input: worker.stdout }).on('line', (line) => {
    const { handled: data } = JSON.parse(line);
    handled.set(data.n, (handled.get(data.n) ?? 0) + 1);
  });
  return worker;
}

async function v1(server, channel, path) {
  const response = await fetch(`${server.url}/v1/channels/${channel}/groups/${GROUP}${path}`, {
    headers: { 'X-API-Key': 'dev-api-key' },
  });
  return { status: response.status, body: await response.json() };
}

/** Waits until the group is there and nothing is left but `dead` dead letters. */
async function untilDone(server, channel, dead) {
  let last;
  await until('end of the work', async () => {
    last = await v1(server, channel, '');
    return last.status === 200 && last.body.lag_events === 0 && last.body.dead_letters === dead;
  }, () => JSON.stringify(last), 60_000);
}

for (const engine of ENGINES) {
  test(`${engine.name}: a worker over HTTP loses nothing when workers and the server are killed`, async (t) => {
    const server = await Server.start(t, { engine: engine.url(t) });
    const channel = uniqueName('work');
    const handled = new Map();
    const workers = [work(t, server, channel, handled), work(t, server, channel, handled)];
    // Declared by a worker before the first event, or `memory:` and a slow start would make it a race.
    await until('group', async () => (await v1(server, channel, '')).status === 200);
    const publish = (n) => server.api('publish', { channel, data: { n, amount: n === 13 ? -1 : n } });
    const numbers = [...Array(200).keys()];
    for (const n of numbers.slice(0, 100)) await publish(n);
    await until('first half of the work', () => handled.size >= 50);
    workers[0].kill('SIGKILL');
    workers.push(work(t, server, channel, handled));
    if (engine.keeps) {
      await server.kill();
      await server.restart();
    }
    for (const n of numbers.slice(100)) await publish(n);
    await untilDone(server, channel, 1);

    assert.deepEqual(numbers.filter((n) => !handled.has(n)), [13], 'all but the rejected one are handled');
    const { body } = await v1(server, channel, '/dead-letters');
    assert.deepEqual(body.letters.map(({ reason }) => reason), ['amount -1 is negative']);
    // A worker that is told to stop leaves nothing behind.
    const stopped = new Promise((resolve) => workers[2].on('exit', resolve));
    workers[2].kill('SIGTERM');
    await stopped;
  });
}

/** Starts the worker in Rust; what it ships is noted in `shipped`, in its order. */
function ship(t, url, channel, shipped, ...more) {
  const worker = spawn(setting('TIDEWIRE_TEST_WORKER'), [url, '--channel', channel, ...more], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  t.after(() => worker.kill('SIGKILL'));
  createInterface({ input: worker.stdout }).on('line', (line) => {
    const [, id, customer] = line.match(/^shipped (\d+) for (\S+), attempt \d+$/);
    shipped.push({ id: Number(id), customer });
  });
  return worker;
}

for (const engine of ENGINES.filter(({ keeps }) => keeps)) {
  test(`${engine.name}: the worker in Rust ships every order, of each customer in order, though it is killed`, async (t) => {
    const [url, channel, shipped] = [engine.url(t), uniqueName('orders'), []];
    const count = 400;
    const seen = () => new Set(shipped.map(({ id }) => id)).size;
    const isShared = !url.startsWith('file:');
    if (isShared) ship(t, url, channel, shipped);
    for (const part of [0.2, 0.5]) {
      // Appended again by the next one: under its dedup id each order is there once.
      const worker = ship(t, url, channel, shipped, '--append', String(count));
      await until(`${part} of the work`, () => seen() >= count * part, () => `${seen()} shipped`);
      const ended = new Promise((resolve) => worker.on('exit', resolve));
      worker.kill('SIGKILL');
      await ended;
    }
    ship(t, url, channel, shipped, '--append', String(count));
    const wanted = [...Array(count + 1).keys()].filter((id) => id % 97 !== 0);
    await until('all orders', () => seen() === wanted.length, () => `${seen()} of ${wanted.length} shipped`, 60_000);
    assert.deepEqual([...new Set(shipped.map(({ id }) => id))].sort((a, b) => a - b), wanted);
    if (isShared) return;
    // In one process the lines are in the order in which the orders were shipped: first times never go back.
    const newest = new Map();
    const firsts = new Set();
    for (const { id, customer } of shipped) {
      if (firsts.has(id)) continue;
      firsts.add(id);
      assert.ok((newest.get(customer) ?? 0) < id, `${id} of ${customer} after ${newest.get(customer)}`);
      newest.set(customer, id);
    }
  });
}
