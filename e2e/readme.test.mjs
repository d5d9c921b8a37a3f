// The sixty seconds of the README, command by command as they are written there.

import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { promisify } from 'node:util';

import { Server, setting, temporaryFolder, until } from './tidewire.mjs';

const SECTION = '## Sixty seconds';
const README_ADDRESS = 'http://127.0.0.1:8000';
const README_ALIAS = "alias tidewire='cargo run --release --quiet --'\n";

/** The section's shell commands; one that goes on over lines is one command. */
function commands() {
  const readme = readFileSync(new URL('../README.md', import.meta.url), 'utf8');
  const section = readme.split(`\n${SECTION}\n`)[1].split('\n## ')[0];
  const blocks = [...section.matchAll(/^```sh\n(.*?)^```$/gms)].map(([, block]) => block).join('');
  assert.ok(blocks.includes(README_ALIAS), 'the README calls the binary by this alias');
  return blocks.replace(README_ALIAS, '').replaceAll('\\\n', ' ').trim().split('\n');
}

test('readme: sixty seconds, copied and pasted', async (t) => {
  const folder = temporaryFolder(t);
  const server = await Server.start(t, { folder });
  // The same command against our server's port and our binary; arguments reach it as `sh` splits them.
  const script = (command) => `tidewire() { exec '${setting('TIDEWIRE_TEST_BINARY')}' "$@"; }
    ${command.replaceAll(README_ADDRESS, server.url)}`;
  const options = { cwd: folder, env: { ...process.env, TIDEWIRE_URL: server.url } };

  const followed = [];
  for (const command of commands()) {
    const inBackground = /^(.*) & +#.*$/.exec(command);
    if (!inBackground) {
      await promisify(execFile)('sh', ['-c', script(command)], options);
      continue;
    }
    const follower = spawn('sh', ['-c', script(inBackground[1])], { ...options, stdio: ['ignore', 'pipe', 'inherit'] });
    t.after(() => follower.kill());
    createInterface({ input: follower.stdout }).on('line', (line) => followed.push(line));
    await until('line from the follower', () => followed.length > 0);
  }

  await until('third line from the follower', () => followed.length >= 3, () => JSON.stringify(followed));
  const expected = [/\b1 +\{"hello":"world"\}$/, /\b2 +\{"n":1\}$/, /\blive +\{"n":2\}$/];
  assert.equal(followed.length, expected.length);
  expected.forEach((pattern, index) => assert.match(followed[index], pattern));
});
