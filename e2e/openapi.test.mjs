// The OpenAPI document as other tools read it.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Validator } from '@seriousme/openapi-schema-validator';

import { Server } from './tidewire.mjs';

test('openapi: a published validator takes the document of a server', async (t) => {
  const server = await Server.start(t, { engine: 'memory:' });
  const response = await fetch(`${server.url}/openapi.json`);
  assert.equal(response.headers.get('content-type'), 'application/json');
  const document = await response.json();
  const validator = new Validator();
  const { valid, errors } = await validator.validate(document);
  assert.ok(valid, JSON.stringify(errors));
  assert.equal(validator.version, '3.1');

  // And it tells what is wrong, where something is.
  delete document.paths['/api/publish'].post.responses;
  document.paths['/v1/channels/{channel}/groups'].get.parameters[0].in = 'nowhere';
  assert.equal((await new Validator().validate(document)).valid, false);
});
