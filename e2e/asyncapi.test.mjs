// A catalog of events as other tools read it: AsyncAPI by its official parser, TypeScript by its compiler.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { copyFileSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import { DiagnosticSeverity, Parser } from '@asyncapi/parser';

import { Server, setting, temporaryFolder } from './tidewire.mjs';

const KEY = 'dev-api-key';
const FOLDER = fileURLToPath(new URL('.', import.meta.url));
const GOLDEN = join(FOLDER, '../crates/tidewire/src/event/typescript/golden.ts');

const run = promisify(execFile);

/** What a type derived from Rust has, and what one written by hand may. */
const CATALOG = {
  catalog: 1,
  events: [
    { type: 'order.placed', version: 1, channel: 'shop:orders', schema: { type: 'object' } },
    {
      type: 'order.placed',
      version: 2,
      channel: 'shop:orders',
      description: 'An order was placed.',
      signed: true,
      schema: {
        $schema: 'https://json-schema.org/draft/2020-12/schema',
        title: 'OrderPlaced',
        type: 'object',
        required: ['id', 'lines', 'payment', 'place', 'state'],
        properties: {
          id: { type: 'integer', format: 'uint64', minimum: 0, 'x-key': true },
          card: { type: ['string', 'null'], 'x-redact': true },
          lines: { type: 'array', items: { $ref: '#/$defs/Line' } },
          first: { anyOf: [{ $ref: '#/$defs/Line' }, { type: 'null' }], description: 'The first line.' },
          payment: { $ref: '#/$defs/Payment' },
          place: {
            type: 'array', prefixItems: [{ type: 'number' }, { type: 'number' }], minItems: 2, maxItems: 2,
          },
          state: { oneOf: [{ const: 'open', type: 'string' }, { enum: ['paid', 'sent'], type: 'string' }] },
          by_name: { type: 'object', additionalProperties: { type: 'integer' } },
          'odd-name': { type: 'boolean' },
          class: { type: 'string' },
          anything: true,
          nothing: false,
        },
        $defs: {
          Line: {
            type: 'object',
            required: ['sku'],
            properties: { sku: { type: 'string' }, parts: { type: 'array', items: { $ref: '#/$defs/Line' } } },
            unevaluatedProperties: false,
          },
          Payment: {
            oneOf: [
              {
                type: 'object',
                required: ['type', 'number'],
                properties: { type: { const: 'card' }, number: { type: 'string', minLength: 12 } },
              },
              { type: 'object', required: ['type'], properties: { type: { const: 'cash' } } },
            ],
          },
        },
      },
    },
    {
      type: 'order.cancelled',
      version: 1,
      channel: 'shop:orders',
      sealed: true,
      schema: { type: 'object', required: ['id'], properties: { id: { type: 'integer' } } },
    },
    { type: 'stock.counted', version: 1, schema: true },
  ],
};

/** Fails with what the parser says is wrong. */
async function assertParsed(text) {
  const { document, diagnostics } = await new Parser().parse(text);
  const errors = diagnostics.filter(({ severity }) => severity === DiagnosticSeverity.Error);
  assert.deepEqual(errors, []);
  assert.ok(document, 'a document was made');
  return document;
}

/** The catalog in a file, and a server that has it. */
async function serverWithCatalog(t) {
  const folder = temporaryFolder(t);
  const catalog = join(folder, 'events.json');
  const config = join(folder, 'tidewire.toml');
  writeFileSync(catalog, JSON.stringify(CATALOG));
  writeFileSync(config, `[tenants.default]\nevents = ${JSON.stringify(catalog)}\n`);
  return { catalog, server: await Server.start(t, { engine: 'memory:', folder, config }) };
}

async function tidewire(...options) {
  const { stdout } = await run(setting('TIDEWIRE_TEST_BINARY'), options);
  return stdout;
}

test('asyncapi: the official parser takes the document of a server', async (t) => {
  const { server } = await serverWithCatalog(t);
  const response = await fetch(`${server.url}/v1/asyncapi.json`, { headers: { 'X-API-Key': KEY } });
  assert.equal(response.status, 200);
  const document = await assertParsed(await response.text());
  assert.equal(document.version(), '3.0.0');
  const [channel, ...others] = document.channels().all();
  assert.deepEqual([channel.address(), others.length], ['shop:orders', 0]);
  const names = (operation) => operation.messages().all().map((message) => message.id()).sort();
  const [sent] = document.operations().filterBySend();
  const [received] = document.operations().filterByReceive();
  assert.deepEqual(names(sent), ['order.cancelled.1', 'order.placed.2']);
  assert.deepEqual(names(received), ['order.cancelled.1', 'order.placed.1', 'order.placed.2']);
  const placed = document.components().messages().get('order.placed.2');
  assert.equal(placed.payload().properties().id.extensions().get('x-key').value(), true);
  assert.equal(placed.payload().properties().lines.items().properties().sku.type(), 'string');
  assert.equal(placed.correlationId().location(), '$message.header#/correlationid');
});

test('asyncapi: the official parser takes what the command line exports', async (t) => {
  const { catalog, server } = await serverWithCatalog(t);
  const fromFile = await tidewire('schema', 'export', '--asyncapi', '--catalog', catalog);
  await assertParsed(fromFile);
  const fromServer = await tidewire('schema', 'export', '--asyncapi', '--url', server.url, '--api-key', KEY);
  assert.equal(fromServer, fromFile);
  await assertParsed(await tidewire('schema', 'export', '--asyncapi', '--catalog', emptyCatalog(t)));
});

function emptyCatalog(t) {
  const file = join(temporaryFolder(t), 'empty.json');
  writeFileSync(file, JSON.stringify({ catalog: 1, events: [] }));
  return file;
}

const USES = `
import type { Channels, Events, OrderPlaced, OrderPlacedV1 } from './events';
const placed: Events['order.placed'] = {
  id: 7, lines: [{ sku: 'a', parts: [{ sku: 'b' }] }], payment: { type: 'card', number: '4' }, place: [1, 2],
  state: 'open', card: null, by_name: { a: 1 }, 'odd-name': true, class: 'x', first: null,
};
const either: Channels['shop:orders'][] = [placed, { id: 7 }];
const old: OrderPlacedV1 = {};
export function total(order: OrderPlaced): string {
  return order.payment.type === 'card' ? order.payment.number : order.lines[0]?.sku ?? String(either.length + Object.keys(old).length);
}
`;

/** Each is wrong in one way. */
const MISUSES = [
  "order.state = 'lost';",
  "order.payment = { type: 'card' };",
  'order.place = [1];',
  "order.by_name = { a: 'b' };",
  'order.lines = [{}];',
  'order.unknown = 1;',
  'order.nothing = 1;',
  "const none: Events['order.lost'] = order;",
];

/** What the compiler says of a program. */
async function compile(folder, program) {
  writeFileSync(join(folder, 'program.ts'), program);
  const options = ['--noEmit', '--strict', '--target', 'es2022', '--module', 'es2022', '--moduleResolution', 'bundler'];
  const compiler = join(FOLDER, 'node_modules/typescript/bin/tsc');
  const outcome = run(process.execPath, [compiler, ...options, 'program.ts'], { cwd: folder });
  return outcome.then(() => '', ({ stdout }) => stdout);
}

test('typescript: the compiler takes the types, and refuses what is not of them', async (t) => {
  const folder = temporaryFolder(t);
  const catalog = join(folder, 'catalog.json');
  writeFileSync(catalog, JSON.stringify(CATALOG));
  await tidewire('schema', 'export', '--typescript', '--catalog', catalog, '--output', join(folder, 'events.ts'));
  assert.equal(await compile(folder, USES), '', readFileSync(join(folder, 'events.ts'), 'utf8'));
  const misuses = MISUSES.map((misuse) => `export function f${MISUSES.indexOf(misuse)}(order: OrderPlaced) { ${misuse} }`);
  const said = await compile(folder, ["import type { Events, OrderPlaced } from './events';", ...misuses].join('\n'));
  const lines = new Set([...said.matchAll(/^program\.ts\((\d+),/gm)].map(([, line]) => Number(line)));
  assert.deepEqual([...lines], MISUSES.map((_, index) => index + 2), said);

  // What is made of Rust types.
  copyFileSync(GOLDEN, join(folder, 'golden.ts'));
  assert.equal(await compile(folder, "export * from './golden';"), '');
});
