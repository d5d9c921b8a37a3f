"""What the tests of the Python SDK share: servers that they start and kill, tokens, the HTTP API, waiting with a deadline."""

import asyncio
import atexit
import base64
import contextlib
import dataclasses
import hmac
import json
import os
import re
import signal
import sys
import tempfile
import time
import unittest
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable

# The fixed keys of `tidewire serve --dev`.
API_KEY = "dev-api-key"
TOKEN_SECRET = "dev-token-secret"

START_TIMEOUT_S = 20
WAIT_TIMEOUT_S = 30
LOG_BYTES_MAX = 64 * 1024

# Whatever proxy the environment names, it is not for servers on this machine.
direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def setting(name: str) -> str:
    """What `cargo xtask test` hands over; a missing one is a loud failure, never a skipped test."""
    value = os.environ.get(name)
    if not value:
        raise RuntimeError(f"{name} is not set: run these tests by `cargo xtask e2e`")
    return value


def temporary_folder(test: unittest.TestCase) -> str:
    """A folder that is removed with the test."""
    folder = tempfile.TemporaryDirectory(prefix="tidewire-e2e-")
    test.addCleanup(folder.cleanup)
    return folder.name


@dataclasses.dataclass
class Engine:
    """Whether a stream survives the process, and a URL that no other test disturbs."""

    name: str
    keeps: bool
    url: Callable[[unittest.TestCase], str]


ENGINES = [
    Engine("memory", keeps=False, url=lambda test: "memory:"),
    Engine("file", keeps=True, url=lambda test: f"file:{temporary_folder(test)}"),
    Engine("redis", keeps=True, url=lambda test: setting("TIDEWIRE_TEST_REDIS_URL")),
    Engine("cluster", keeps=True, url=lambda test: setting("TIDEWIRE_TEST_REDIS_CLUSTER_URL")),
]


def unique_name(prefix: str) -> str:
    """A name that no other test and no earlier run uses."""
    return f"{prefix}-{uuid.uuid4().hex[:8]}"


running: set[int] = set()


@atexit.register
def kill_all() -> None:
    """A test process that ends early, as by Ctrl-C, takes its servers along."""
    for pid in running:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


# As Ctrl-C does: unittest takes any other exception for a failed test, and goes on.
signal.signal(signal.SIGTERM, signal.default_int_handler)


class Server:
    """A `tidewire serve --dev` process."""

    def __init__(self, engine_url: str, log):
        self.engine_url = engine_url
        self.log = log
        self.process: asyncio.subprocess.Process | None = None

    @classmethod
    @contextlib.asynccontextmanager
    async def started(cls, engine_url: str):
        """One that listens, and ends with the block. A block that fails shows its log."""
        with tempfile.TemporaryFile() as log:
            server = cls(engine_url, log)
            try:
                await server.launch("127.0.0.1:0")
                yield server
            except BaseException:
                log.seek(max(0, log.seek(0, os.SEEK_END) - LOG_BYTES_MAX))
                print(f"--- log of tidewire\n{log.read().decode(errors='replace')}", file=sys.stderr)
                raise
            finally:
                await server.kill()

    async def restart(self) -> None:
        """Starts again on the same address and the same engine."""
        await self.launch(self.url.removeprefix("http://"))

    async def launch(self, listen: str) -> None:
        self.process = await asyncio.create_subprocess_exec(
            setting("TIDEWIRE_TEST_BINARY"), "serve", "--dev", "--engine", self.engine_url, "--listen", listen,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=self.log,
        )
        running.add(self.process.pid)
        self.url = await asyncio.wait_for(self.address(), START_TIMEOUT_S)

    async def address(self) -> str:
        async for line in self.process.stdout:
            if found := re.match(r"listening on (http://\S+)$", line.decode()):
                return found[1]
        raise RuntimeError("tidewire ended before it listened")

    async def kill(self) -> None:
        """`kill -9`. Returns when the process is gone."""
        if self.process is None:
            return
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
        running.discard(self.process.pid)

    @property
    def websocket_url(self) -> str:
        return f"{self.url.replace('http:', 'ws:')}/connection/websocket"

    async def api(self, method: str, **body):
        """Calls a method of the server API and returns its result."""
        return await asyncio.to_thread(self.call, method, body)

    def call(self, method: str, body: dict):
        headers = {"Content-Type": "application/json", "X-API-Key": API_KEY}
        request = urllib.request.Request(f"{self.url}/api/{method}", json.dumps(body).encode(), headers)
        try:
            with direct.open(request, timeout=WAIT_TIMEOUT_S) as response:
                answer = json.load(response)
        except urllib.error.HTTPError as refused:
            raise RuntimeError(f"/api/{method} answers {refused.code}: {refused.read().decode()}") from refused
        if error := answer.get("error"):
            raise RuntimeError(f"/api/{method} answers error {error['code']}: {error['message']}")
        return answer["result"]


def connection_token(user: str, valid_s: int = 3600) -> str:
    """A connection token, HS256, as an application's own server would make it."""

    def part(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    now = int(time.time())
    claims = {"sub": user, "tenant": "default", "iat": now, "exp": now + valid_s}
    signed = ".".join(part(json.dumps(value).encode()) for value in ({"alg": "HS256", "typ": "JWT"}, claims))
    signature = hmac.digest(TOKEN_SECRET.encode(), signed.encode(), "sha256")
    return f"{signed}.{part(signature)}"


async def soon(awaited):
    """What is waited for, or an error past the deadline."""
    return await asyncio.wait_for(awaited, WAIT_TIMEOUT_S)
