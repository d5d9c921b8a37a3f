#!/usr/bin/env python3
"""A worker in another language: bills orders over HTTP, with nothing but Python's standard library.

    tidewire serve --dev
    python3 examples/worker.py http://127.0.0.1:8000 dev-api-key

Kill it, or the server, with `kill -9` at any moment and start it again: every order is billed, or is a dead letter.
"""
import json
import sys
import time
import urllib.error
import urllib.request

URL, KEY = sys.argv[1], sys.argv[2]
GROUP = f"{URL}/v1/channels/orders/groups/billing"


def ask(method, path, body, seconds=30):
    """Sends a request; gives the status and the answer."""
    request = urllib.request.Request(
        GROUP + path, json.dumps(body).encode(), {"X-API-Key": KEY, "Content-Type": "application/json"}, method=method
    )
    try:
        with urllib.request.urlopen(request, timeout=seconds) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def bill(delivery):
    """Does the work; gives what becomes of the delivery."""
    order = delivery["event"]["data"]
    if order["id"] % 97 == 0:
        return {"outcome": "reject", "reason": "the customer has no account"}
    if order["id"] % 10 == 0 and delivery["attempt"] == 1:
        return {"outcome": "retry", "after_ms": 200, "reason": "the bank does not answer"}
    print(f"billed {order['id']}, attempt {delivery['attempt']}", flush=True)
    return {"outcome": "ack"}


def work():
    ask("PUT", "", {"start": "earliest"})
    while True:
        status, fetched = ask("POST", "/fetch", {"limit": 20, "wait_ms": 20_000, "lease_ms": 10_000})
        if status != 200:
            raise OSError(f"fetch: {status} {fetched}")
        if not fetched.get("deliveries"):
            continue
        outcomes = [{"id": delivery["id"], **bill(delivery)} for delivery in fetched["deliveries"]]
        # 409: the lease is over, or another node gave it. What was not settled comes again.
        ask("POST", "/settle", {"lease": fetched["lease"], "outcomes": outcomes})


while True:
    try:
        work()
    except OSError as error:
        print(f"trying again: {error}", file=sys.stderr)
        time.sleep(0.5)
