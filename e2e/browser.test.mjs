// Headless Chromium over the death of its node: the demo page, and the published SDK on every engine that keeps.

import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as after } from 'node:timers/promises';

import { chromium } from 'playwright-core';

import {
  Balancer, connectionToken, ENGINES, RedisCluster, Server, setting, temporaryFolder, uniqueName,
} from './tidewire.mjs';

const CHROMIUM_OPTIONS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];
const OUTAGE_MS = 5_000;
// The SDK waits up to 20 s between attempts to reconnect.
const RECONNECT_TIMEOUT_MS = 60_000;
const MISSED = 1_000;

/** A page of a fresh browser profile; the browser ends with the test. */
async function newPage(t) {
  const browser = await chromium.launch({
    executablePath: setting('TIDEWIRE_TEST_CHROMIUM'),
    headless: true,
    args: CHROMIUM_OPTIONS,
  });
  t.after(() => browser.close());
  const page = await browser.newPage();
  page.on('pageerror', (error) => console.error(`the page failed: ${error}`));
  return page;
}

async function expectState(page, expected) {
  const selector = `body[data-state="${expected}"]`;
  await page.waitForSelector(selector, { state: 'attached', timeout: RECONNECT_TIMEOUT_MS });
}

/** The feed, oldest first; the page shows the newest on top. */
async function readFeed(page) {
  const items = await page.$$eval('#feed li', (elements) =>
    elements.map((element) => ({ offset: element.dataset.offset, text: element.textContent })));
  return items.reverse().map(({ offset, text }) => ({ offset: Number(offset), data: JSON.parse(text) }));
}

/** A page of the server's origin that shows, with the published SDK alone, what the demo page shows. */
async function openSdkPage(page, server, channel) {
  const sdk = readFileSync(new URL('./node_modules/centrifuge/dist/centrifuge.js', import.meta.url), 'utf8');
  // A page of the server's own first: a browser lets only what came from loopback go on talking to loopback.
  await page.goto(`${server.url}/health`);
  await page.setContent('<body><ol id="feed"></ol></body>');
  await page.addScriptTag({ content: sdk });
  await page.evaluate(({ endpoint, token, channel }) => {
    const client = new Centrifuge(endpoint, { token });
    const subscription = client.newSubscription(channel, { recoverable: true, positioned: true });
    subscription.on('state', ({ newState }) => {
      document.body.dataset.state = newState;
    });
    subscription.on('publication', ({ data, offset }) => {
      const item = document.createElement('li');
      item.dataset.offset = offset;
      item.textContent = JSON.stringify(data);
      document.getElementById('feed').prepend(item);
    });
    subscription.subscribe();
    client.connect();
  }, { endpoint: server.websocketUrl, token: connectionToken('alice'), channel });
}

/** Waits for as many as were appended, then compares all: what is missing, came twice or out of order shows. */
async function expectFeed(page, length) {
  const isThere = (count) => document.querySelectorAll('#feed li').length >= count;
  await page.waitForFunction(isThere, length, { polling: 50, timeout: RECONNECT_TIMEOUT_MS }).catch(() => {});
  const expected = Array.from({ length }, (_, n) => ({ offset: n + 1, data: { n } }));
  assert.deepEqual(await readFeed(page), expected);
}

test('the page of node B shows what is appended on node A, and misses nothing while B is dead for 5 s', async (t) => {
  const engine = setting('TIDEWIRE_TEST_REDIS_URL');
  const a = await Server.start(t, { engine, name: 'node A' });
  const b = await Server.start(t, { engine, name: 'node B' });
  const channel = uniqueName('page');
  const page = await newPage(t);
  await page.goto(`${b.url}/?channel=${channel}`);
  await expectState(page, 'connected');

  await a.api('publish', { channel, data: { n: 0 } });
  await expectFeed(page, 1);

  await b.kill();
  const outage = after(OUTAGE_MS);
  await expectState(page, 'connecting');
  for (let n = 1; n <= MISSED; n += 1) {
    await a.api('publish', { channel, data: { n } });
  }
  await outage;
  await expectFeed(page, 1);
  await b.restart();
  await expectState(page, 'connected');
  await expectFeed(page, 1 + MISSED);

  // One more, live: what comes after the recovery neither overtakes nor repeats it.
  await a.api('publish', { channel, data: { n: MISSED + 1 } });
  await expectFeed(page, 1 + MISSED + 1);
});

// What a feed of 200 events a second appends while a primary dies, a replica takes over, and it comes back.
const FEED_EVERY_MS = 5;
const FEED_BEFORE = 400;
const FEED_AFTER = 600;
const CONFIRM_TIMEOUT_MS = 60_000;

/** Publishes until it is confirmed; the key makes sure that it takes effect once. */
async function publishConfirmed(server, channel, n) {
  const deadline = Date.now() + CONFIRM_TIMEOUT_MS;
  for (;;) {
    try {
      return await server.api('publish', { channel, data: { n }, idempotency_key: `${channel}-${n}` });
    } catch (error) {
      if (Date.now() > deadline) throw error;
    }
  }
}

test('two nodes on a Redis Cluster: a page has each event once and in order over the death of a primary', async (t) => {
  const cluster = await RedisCluster.start(t);
  const config = join(temporaryFolder(t), 'tidewire.toml');
  writeFileSync(config, `
    [[tenants.default.channels]]
    pattern = "*"
    subscribe = "anyone"
    keep = { events = 100_000, age = "1h", durability = "replicated(1)" }
  `);
  const a = await Server.start(t, { engine: cluster.url, config, name: 'node A' });
  const b = await Server.start(t, { engine: cluster.url, config, name: 'node B' });
  const channel = uniqueName('feed');
  const page = await newPage(t);
  await page.goto(`${b.url}/?channel=${channel}`);
  await expectState(page, 'connected');

  let confirmed = 0;
  const feed = async (count) => {
    for (let n = 0; n < count; n += 1) {
      const tick = after(FEED_EVERY_MS);
      await publishConfirmed(a, channel, confirmed);
      confirmed += 1;
      await tick;
    }
  };
  await feed(FEED_BEFORE);
  const primary = await cluster.tell(`holder *:stream:${channel}`);
  const feeding = feed(FEED_AFTER);
  await cluster.tell(`kill ${primary}`);
  await cluster.tell(`failed-over ${primary}`);
  // The replica that took over has no replica itself until the old primary is back: until then nothing is confirmed.
  await cluster.tell(`restart ${primary}`);
  await feeding;
  await expectFeed(page, FEED_BEFORE + FEED_AFTER);
});

// Between the restarts of the two nodes, and after them.
const FEED_BETWEEN = 300;

test('a page behind a balancer has each event once and in order over a rolling restart of both nodes', async (t) => {
  const engine = setting('TIDEWIRE_TEST_REDIS_URL');
  const a = await Server.start(t, { engine, name: 'node A' });
  const b = await Server.start(t, { engine, name: 'node B' });
  const balancer = await Balancer.start(t, [a, b]);
  const channel = uniqueName('rolling');
  const page = await newPage(t);
  await page.goto(`${balancer.url}/?channel=${channel}`);
  await expectState(page, 'connected');

  let [confirmed, isOver, up] = [0, false, a];
  const feeding = (async () => {
    while (!isOver) {
      const tick = after(FEED_EVERY_MS);
      await publishConfirmed({ api: (...call) => up.api(...call) }, channel, confirmed);
      confirmed += 1;
      await tick;
    }
  })();
  const more = async (count) => {
    const until = confirmed + count;
    while (confirmed < until) await after(FEED_EVERY_MS);
  };
  await more(FEED_BETWEEN);
  for (const [leaving, staying] of [[a, b], [b, a]]) {
    up = staying;
    await leaving.stop();
    await leaving.restart();
    await more(FEED_BETWEEN);
  }
  isOver = true;
  await feeding;
  await expectState(page, 'connected');
  await expectFeed(page, confirmed);
  t.diagnostic(`${confirmed} events`);
});

for (const engine of ENGINES.filter(({ keeps }) => keeps)) {
  test(`${engine.name}: the published SDK in the browser misses nothing over kill -9`, async (t) => {
    const server = await Server.start(t, { engine: engine.url(t) });
    const channel = uniqueName('browser');
    const page = await newPage(t);
    await openSdkPage(page, server, channel);
    await expectState(page, 'subscribed');
    await server.api('publish', { channel, data: { n: 0 } });
    await expectFeed(page, 1);

    await server.kill();
    await expectState(page, 'subscribing');
    await server.restart();
    for (let n = 1; n <= 100; n += 1) {
      await server.api('publish', { channel, data: { n } });
    }
    await expectState(page, 'subscribed');
    await expectFeed(page, 101);
  });
}
