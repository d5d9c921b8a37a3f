// A worker of a group over HTTP, in Node 18 or newer, without a package:
//
//   TIDEWIRE_URL=http://127.0.0.1:8000 TIDEWIRE_API_KEY=dev-api-key node worker.mjs CHANNEL GROUP
//
// Every event is handled at least once: kill this worker, or the server, at any moment, and what it had comes again.

const [channel, group] = process.argv.slice(2);
const { TIDEWIRE_URL = 'http://127.0.0.1:8000', TIDEWIRE_API_KEY = 'dev-api-key' } = process.env;
const base = `${TIDEWIRE_URL}/v1/channels/${encodeURIComponent(channel)}/groups/${encodeURIComponent(group)}`;
const LEASE_MS = Number(process.env.LEASE_MS ?? 10_000);
let isStopping = false;
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => { isStopping = true; });

/** What a delivery is for: throw to have it again later, return a reason to have it never again. */
async function handle({ event, attempt }) {
  if (event.data?.amount < 0) return `amount ${event.data.amount} is negative`;
  console.log(JSON.stringify({ handled: event.data, attempt }));
}

async function call(path, body, method = 'POST') {
  const headers = { 'Content-Type': 'application/json', 'X-API-Key': TIDEWIRE_API_KEY };
  const response = await fetch(base + path, { method, headers, body: JSON.stringify(body) });
  const answer = await response.json();
  if (response.ok) return answer;
  throw Object.assign(new Error(answer.error?.message ?? `status ${response.status}`), { status: response.status });
}

async function outcomeOf(delivery) {
  const { id } = delivery;
  if (isStopping) return { id, outcome: 'hand_back' };
  try {
    const reason = await handle(delivery);
    return reason ? { id, outcome: 'reject', reason } : { id, outcome: 'ack' };
  } catch (error) {
    return { id, outcome: 'retry', reason: String(error) };
  }
}

async function work({ lease, deliveries }) {
  // Held for as long as the handlers take; when that fails, settling tells.
  const extend = () => call('/extend', { lease, lease_ms: LEASE_MS }).catch(() => {});
  const renewal = setInterval(extend, LEASE_MS / 3);
  try {
    const outcomes = [];
    for (const delivery of deliveries) outcomes.push(await outcomeOf(delivery));
    await call('/settle', { lease, outcomes });
  } finally {
    clearInterval(renewal);
  }
}

let isDeclared = false;
while (!isStopping) {
  try {
    if (!isDeclared) await call('', { start: 'earliest' }, 'PUT');
    isDeclared = true;
    const fetched = await call('/fetch', { limit: 10, wait_ms: 5_000, lease_ms: LEASE_MS });
    if (fetched.lease) await work(fetched);
  } catch (error) {
    // 404: the group is not there. 409: the lease is over, its deliveries come again. No status: the server is away.
    if (error.status === 404) isDeclared = false;
    console.error(`${error.message}; going on`);
    if (error.status !== 409) await new Promise((resolve) => setTimeout(resolve, 500));
  }
}
