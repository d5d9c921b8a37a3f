// What the end-to-end tests share: servers that they start and kill, tokens, the HTTP API, waiting with a deadline.

import { spawn } from 'node:child_process';
import { createHmac, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect as connectTo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as after } from 'node:timers/promises';

// The fixed keys of `tidewire serve --dev`.
const API_KEY = 'dev-api-key';
const TOKEN_SECRET = 'dev-token-secret';

const START_TIMEOUT_MS = 20_000;
const POLL_MS = 20;
const LOG_CHARACTERS_MAX = 64 * 1024;

/** What `cargo xtask test` hands over; a missing one is a loud failure, never a skipped test. */
export function setting(name) {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set: run these tests by \`cargo xtask e2e\``);
  return value;
}

/** Every engine: whether a stream survives the process, and a URL that no other test disturbs. */
export const ENGINES = [
  { name: 'memory', keeps: false, url: () => 'memory:' },
  { name: 'file', keeps: true, url: (t) => `file:${temporaryFolder(t)}` },
  { name: 'redis', keeps: true, url: () => setting('TIDEWIRE_TEST_REDIS_URL') },
  { name: 'cluster', keeps: true, url: () => setting('TIDEWIRE_TEST_REDIS_CLUSTER_URL') },
];

/** A name that no other test and no earlier run uses. */
export function uniqueName(prefix) {
  return `${prefix}-${randomUUID().slice(0, 8)}`;
}

/** A folder that is removed with the test. */
export function temporaryFolder(t) {
  const folder = mkdtempSync(join(tmpdir(), 'tidewire-e2e-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

const running = new Set();

// A test process that ends early, as by Ctrl-C, takes its servers along.
process.on('exit', () => {
  for (const server of running) {
    server.child.kill('SIGKILL');
  }
});
for (const signal of ['SIGINT', 'SIGTERM']) {
  process.on(signal, () => process.exit(130));
}

/** A `tidewire serve --dev` process. */
export class Server {
  /**
   * Starts a server that ends with the test; resolves when it listens. A failed test shows its log.
   * Without an engine it has the default one, in `folder`. `config` is the path of a settings file, `env` what is set beside
   * what this process has; of the log the newest `logMax` characters are kept.
   */
  static async start(t, { name = 'tidewire', ...options }) {
    const server = new Server({ name, ...options });
    t.after(async () => {
      await server.kill();
      if (t.passed === false) console.error(`--- log of ${name}\n${server.log.slice(-LOG_CHARACTERS_MAX)}`);
    });
    await server.launch('127.0.0.1:0');
    return server;
  }

  constructor({ engine, folder, config, name, env = {}, logMax = LOG_CHARACTERS_MAX }) {
    this.options = [
      'serve', '--dev', ...(engine ? ['--engine', engine] : []), ...(config ? ['--config', config] : []),
    ];
    this.folder = folder;
    this.name = name;
    this.env = env;
    this.log = '';
    this.logMax = logMax;
  }

  /** Starts again on the same address and the same engine. */
  async restart() {
    await this.launch(new URL(this.url).host);
  }

  async launch(listen) {
    this.child = spawn(setting('TIDEWIRE_TEST_BINARY'), [...this.options, '--listen', listen], {
      cwd: this.folder,
      env: { ...process.env, ...this.env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    running.add(this);
    this.child.stderr.setEncoding('utf8').on('data', (text) => {
      this.log = (this.log + text).slice(-this.logMax);
    });
    this.exited = once(this.child, 'exit').then(() => running.delete(this));
    const lines = createInterface({ input: this.child.stdout });
    const address = new Promise((resolve) => {
      lines.on('line', (line) => {
        const found = /^listening on (https?:\/\/\S+)$/.exec(line);
        if (found) resolve(found[1]);
      });
    });
    this.url = await within(START_TIMEOUT_MS, `${this.name} to listen`, Promise.race([
      address,
      this.exited.then(() => {
        throw new Error(`${this.name} ended before it listened`);
      }),
    ]));
  }

  /** Has it close in good order. Resolves when the process is gone. */
  async stop() {
    this.child.kill('SIGTERM');
    await this.exited;
  }

  /** `kill -9`. Resolves when the process is gone. */
  async kill() {
    if (running.has(this)) {
      this.child.kill('SIGKILL');
      await this.exited;
    }
  }

  get websocketUrl() {
    return `${this.url.replace(/^http/, 'ws')}/connection/websocket`;
  }

  /** Calls a method of the server API and returns its result. */
  async api(method, body) {
    const response = await fetch(`${this.url}/api/${method}`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json', 'X-API-Key': API_KEY },
      body: JSON.stringify(body),
    });
    const text = await response.text();
    if (!response.ok) throw new Error(`/api/${method} answers ${response.status}: ${text}`);
    const { result, error } = JSON.parse(text);
    if (error) throw new Error(`/api/${method} answers error ${error.code}: ${error.message}`);
    return result;
  }
}

/** One address in front of several servers: a connection goes to the next of them that takes one, as a load balancer does it. */
export class Balancer {
  /** Starts one that ends with the test. */
  static async start(t, servers) {
    const balancer = new Balancer();
    const hosts = servers.map(({ url }) => new URL(url));
    let turn = 0;
    balancer.server = createServer((client) => {
      client.on('error', () => client.destroy());
      const attempt = (left) => {
        turn = (turn + 1) % hosts.length;
        const upstream = connectTo(Number(hosts[turn].port), hosts[turn].hostname);
        let isOpen = false;
        upstream.on('connect', () => {
          isOpen = true;
          client.pipe(upstream).pipe(client);
        });
        upstream.on('error', () => (isOpen || left === 1 ? client.destroy() : attempt(left - 1)));
        upstream.on('close', () => isOpen && client.destroy());
        client.on('close', () => upstream.destroy());
      };
      attempt(hosts.length);
    });
    balancer.server.listen(0, '127.0.0.1');
    await once(balancer.server, 'listening');
    t.after(() => balancer.server.close());
    balancer.url = `http://127.0.0.1:${balancer.server.address().port}`;
    return balancer;
  }
}

/** A Redis Cluster of three primaries with a replica each, whose servers a test kills and starts again. */
export class RedisCluster {
  /** Starts one that ends with the test. */
  static async start(t) {
    const cluster = new RedisCluster();
    cluster.child = spawn(setting('TIDEWIRE_TEST_FLEET'), { stdio: ['pipe', 'pipe', 'inherit'] });
    t.after(() => cluster.child.stdin.end());
    cluster.lines = createInterface({ input: cluster.child.stdout })[Symbol.asyncIterator]();
    cluster.url = await cluster.line('the cluster');
    return cluster;
  }

  /** Has its servers do something: see `fleet/src/main.rs`. */
  async tell(order) {
    this.child.stdin.write(`${order}\n`);
    const answer = await this.line(order);
    if (answer.startsWith('error')) throw new Error(`${order}: ${answer}`);
    return answer;
  }

  async line(what) {
    const { value, done } = await within(60_000, what, this.lines.next());
    if (done) throw new Error(`the servers ended while waiting for ${what}`);
    return value;
  }
}

/** A connection token, HS256, as an application's own server would make it. */
export function connectionToken(user, claims = {}) {
  const now = Math.floor(Date.now() / 1000);
  const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const signed = [
    part({ alg: 'HS256', typ: 'JWT' }),
    part({ sub: user, tenant: 'default', iat: now, exp: now + 3600, ...claims }),
  ].join('.');
  return `${signed}.${createHmac('sha256', TOKEN_SECRET).update(signed).digest('base64url')}`;
}

/** A promise that others resolve. */
export function gate() {
  const made = {};
  made.opened = new Promise((resolve) => {
    made.open = resolve;
  });
  return made;
}

/** The next event of an emitter such as the SDK's client. */
export function next(emitter, event, timeoutMs = 30_000) {
  return within(timeoutMs, `"${event}"`, new Promise((resolve) => emitter.once(event, resolve)));
}

/** Polls until `condition` holds; past the deadline, fails with the `state` that was there instead. */
export async function until(what, condition, state = () => '', timeoutMs = 30_000) {
  const deadline = Date.now() + timeoutMs;
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`no ${what} in ${timeoutMs} ms ${state()}`);
    await after(POLL_MS);
  }
}

async function within(timeoutMs, what, promise) {
  const timer = new AbortController();
  const deadline = after(timeoutMs, null, { signal: timer.signal }).then(() => {
    throw new Error(`waited ${timeoutMs} ms for ${what}`);
  });
  try {
    return await Promise.race([promise, deadline]);
  } finally {
    timer.abort();
    deadline.catch(() => {});
  }
}
