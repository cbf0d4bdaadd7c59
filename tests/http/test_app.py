"""The server for several clients as a process of its own: how it starts, what it stands, how it stops."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import Any

import anyio
import anyio.to_thread
import httpx
import pytest
from mcp import Client
from mcp.client.sse import sse_client

from tests.hosted import DEADLINE_S, HANDSHAKE, JSON, message
from tests.http_server import Asked, Reply, reply, serving
from tests.server.test_stdio import environment

WORDS = "anyone who can reach it may read and write"
TASK = "Start the engine of the car"
RECALL = message("tools/call", {"name": "recall_experiences", "arguments": {"task": TASK}})


@dataclass
class Process:
    """A server that was started."""

    popen: subprocess.Popen[str]
    home: Path
    port: int = 0
    log: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def read(self) -> None:
        assert self.popen.stderr is not None
        for line in self.popen.stderr:
            self.log.append(line)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        self.popen.send_signal(how)
        return self.popen.wait(DEADLINE_S)


def arguments(*more: str) -> list[str]:
    return [sys.executable, "-m", "reme_mcp", *more]


def token(home: Path, *more: str) -> str:
    done = subprocess.run(
        arguments("token", "create", *more), env=environment(home), capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@contextmanager
def started(home: Path, *options: str, **variables: str) -> Iterator[Process]:
    """Start a server at any port, wait until it listens, and end it."""
    popen = subprocess.Popen(
        arguments("serve", "--port", "0", *(options or ("--http",))),
        env=environment(home) | variables, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    process = Process(popen, home)
    assert popen.stderr is not None
    reader = Thread(target=process.read)
    try:
        said = popen.stderr.readline()
        found = re.search(r"at http://[^ ]+:(\d+)$", said)
        assert found, said
        process.port = int(found[1])
        reader.start()
        yield process
    finally:
        if popen.poll() is None:
            popen.kill()
        popen.wait(DEADLINE_S)
        if reader.ident is not None:
            reader.join()
        popen.stderr.close()


@pytest.mark.slow
def test_a_thousand_open_streams_leave_room_for_a_call(home: Path) -> None:
    pytest.importorskip("resource", reason="the number of open files can't be raised here")
    many = 1_000
    enemy, good = token(home, "enemy", "--workspace", "a"), token(home, "good", "--workspace", "b")
    streams: list[socket.socket] = []
    with started(home, "--http", REME_MCP_HTTP_REQUESTS_PER_MINUTE="0") as server:
        http = httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {good}"}, timeout=DEADLINE_S)
        with http:
            try:
                for _ in range(many):
                    stream = socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE_S)
                    streams.append(stream)
                    stream.sendall(
                        f"GET /sse HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {enemy}\r\n\r\n".encode()
                    )
                answers = [stream.recv(15) for stream in streams]
                assert answers == [b"HTTP/1.1 200 OK"] * many
                one_more = httpx.get(f"{server.url}/sse", headers={"Authorization": f"Bearer {enemy}"})
                assert (one_more.status_code, one_more.headers["retry-after"]) == (429, "5")
                begun = time.monotonic()
                opened = http.post("/mcp", json=HANDSHAKE, headers=JSON)
                session = {"mcp-session-id": opened.headers["mcp-session-id"]}
                assert '"isError":false' in http.post("/mcp", content=RECALL, headers=JSON | session).text
                assert time.monotonic() - begun < 10
            finally:
                for stream in streams:
                    stream.close()
            assert http.get("/readyz").json()["ready"]
    assert not any('"level": "error"' in line for line in server.log), server.log


@pytest.mark.parametrize(
    ("path", "options"),
    [
        ("/mcp", ("--http",)),
        ("/mcp", ("--http", "--workers", "2")),
        pytest.param("/sse", ("--http",), marks=pytest.mark.slow),
    ],
)
def test_a_call_that_is_under_way_is_answered_before_it_stops(home: Path, path: str, options: tuple[str, ...]) -> None:
    # The call waits for the model behind the server, which answers when the server was told to stop.
    asked, told = Event(), Event()

    def slow(_: Asked) -> Reply:
        asked.set()
        assert told.wait(DEADLINE_S)
        return reply({"error": {"message": "no such model"}}, 404)

    with serving(slow) as model:
        variables = {
            "REME_MCP_LLM_BASE_URL": model.base_url, "REME_MCP_LLM_MODEL": "m", "REME_MCP_LLM_WAIT": "true",
        }  # fmt: skip
        with started(home, *options, **variables) as server:
            answer = anyio.run(_record_while_it_is_stopped, server, path, asked, told, "--workers" in options)
            assert answer["status"] == "queued"
            assert server.popen.wait(DEADLINE_S) in (0, -signal.SIGTERM)
            with pytest.raises(ConnectionError):
                socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE_S)


async def _record_while_it_is_stopped(
    server: Process, path: str, asked: Event, told: Event, several: bool
) -> dict[str, Any]:
    answers: list[dict[str, Any]] = []

    async def record() -> None:
        transport: Any = f"{server.url}/mcp" if path == "/mcp" else sse_client(f"{server.url}/sse")
        async with Client(transport, mode="legacy") as one:
            await one.list_tools()
            steps = [{"role": "user", "content": "go"}, {"role": "assistant", "content": "went"}]
            answer = await one.call_tool("record_trajectory", {"task": TASK, "outcome": "failure", "messages": steps})
            assert not answer.is_error, answer.content
            answers.append(dict(answer.structured_content or {}))

    with anyio.fail_after(DEADLINE_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(record)
            try:
                assert await anyio.to_thread.run_sync(asked.wait, DEADLINE_S)
                server.popen.send_signal(signal.SIGTERM)
                # Each request comes over a connection of its own.
                async with httpx.AsyncClient(
                    base_url=server.url, limits=httpx.Limits(max_connections=1, max_keepalive_connections=0)
                ) as http:
                    refused = await _when_it_stops(http)
                    if several:
                        assert refused is None
                    else:
                        assert refused is not None
                        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
            finally:
                told.set()
    return answers[0]


async def _when_it_stops(http: httpx.AsyncClient) -> httpx.Response | None:
    """Return how a call is answered once no more are, `None` where it does not even get in."""
    while True:
        try:
            if (await http.get("/readyz")).status_code != 200:
                return await http.post("/mcp", content=RECALL, headers=JSON)
        except httpx.ConnectError:
            return None
        except httpx.TransportError:
            # It got in just before.
            continue


def test_open_streams_do_not_keep_it_from_stopping(home: Path) -> None:
    with (
        started(home) as server,
        httpx.Client(base_url=server.url, timeout=DEADLINE_S) as http,
        http.stream("GET", "/sse") as stream,
    ):
        assert stream.status_code == 200
        begun = time.monotonic()
        assert server.stop() in (0, -signal.SIGTERM)
        assert time.monotonic() - begun < 5
        # It is ended as streams are, not cut off.
        assert b"event: endpoint" in b"".join(stream.iter_raw())


@pytest.mark.parametrize(
    ("options", "served", "not_served"),
    [(("--http",), ("/mcp", "/sse"), ()), (("--transport", "http"), ("/mcp", "/sse"), ()),
     (("--transport", "sse"), ("/sse",), ("/mcp",))],
)  # fmt: skip
def test_it_serves_what_it_was_asked_to(
    home: Path, options: tuple[str, ...], served: tuple[str, ...], not_served: tuple[str, ...]
) -> None:
    with started(home, *options) as server, httpx.Client(base_url=server.url, timeout=DEADLINE_S) as http:
        for path in ("/mcp", "/sse"):
            with http.stream("GET", path) as answer:
                assert (answer.status_code == 404) is (path in not_served), path
        assert http.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--host", "0.0.0.0"), "0.0.0.0 can be reached by others, and nobody has a token"),
        (("--without-auth", "yes"), "http.without_auth must be empty, or be the words"),
        (("--host", "no.such.host.invalid", "--without-auth", WORDS), "can't listen at no.such.host.invalid"),
    ],
)
def test_what_must_not_or_cannot_be_served_does_not_start(home: Path, options: tuple[str, ...], said: str) -> None:
    done = subprocess.run(
        arguments("serve", "--http", "--port", "0", *options), env=environment(home), capture_output=True, text=True
    )
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_what_others_can_reach_starts_with_a_token_or_in_so_many_words(home: Path) -> None:
    with started(home, "--http", "--host", "0.0.0.0", "--without-auth", WORDS) as server:
        assert httpx.post(f"{server.url}/mcp", json=HANDSHAKE, headers=JSON).status_code == 200
    good = token(home, "ci", "--workspace", "team")
    with started(home, "--http", "--host", "0.0.0.0") as server:
        assert httpx.post(f"{server.url}/mcp", json=HANDSHAKE, headers=JSON).status_code == 401
        bearer = {"Authorization": f"Bearer {good}"}
        assert httpx.post(f"{server.url}/mcp", json=HANDSHAKE, headers=JSON | bearer).status_code == 200


def test_a_port_that_is_taken_is_named(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            arguments("serve", "--http", "--port", port), env=environment(home), capture_output=True, text=True
        )
    assert done.returncode == 1
    assert f"can't listen at 127.0.0.1 port {port}: another program listens there" in done.stderr


def test_tokens_are_made_listed_and_revoked_by_hand(home: Path) -> None:
    def run(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(arguments(*more), env=environment(home), capture_output=True, text=True)

    made = run("token", "create", "ci", "--workspace", "team", "--role", "read", "--expires", "90d")
    text = made.stdout.strip()
    assert text.startswith("reme_")
    assert "ci may read in team" in made.stderr
    listed = run("token", "list")
    assert listed.stdout.startswith("ci\tread\tteam\tvalid\t")
    assert text not in listed.stdout
    assert json.loads(run("token", "list", "--json").stdout)[0]["name"] == "ci"
    assert "there is a token 'ci'" in run("token", "create", "ci", "--workspace", "team").stderr
    assert run("token", "revoke", "ci").stdout == "ci is revoked.\n"
    assert run("token", "list").stdout.startswith("ci\tread\tteam\trevoked\t")
    for wrong in (
        ("revoke", "nobody"),
        ("create", "x", "--workspace", "*"),
        ("create", "x", "--workspace", "a", "--expires", "soon"),
    ):
        done = run("token", *wrong)
        assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    # What stands in the home now does not keep it from being one.
    assert run("stats").returncode == 0


def test_its_log_is_json_from_the_first_request_on(home: Path) -> None:
    with started(home) as server:
        httpx.get(f"{server.url}/mcp", headers={"host": "evil.example"})
        assert server.stop() in (0, -signal.SIGTERM)
    lines = [json.loads(line) for line in server.log]
    assert [(line["path"], line["status"]) for line in lines if line["message"] == "request"] == [("/mcp", 421)]


# --- clients that are not ours ---

FIRST_CLIENT = """
import asyncio, sys
from mcp import ClientSession
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamablehttp_client

async def main(kind, url, token):
    connect = sse_client if kind == "sse" else streamablehttp_client
    async with connect(url, headers={"Authorization": f"Bearer {token}"}) as (reading, writing, *_):
        async with ClientSession(reading, writing) as session:
            await session.initialize()
            print(len((await session.list_tools()).tools))
            done = await session.call_tool("recall_experiences", {"task": "start the engine"})
            print(done.isError, done.structuredContent["receipt"][:2])

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize(("kind", "path"), [("http", "/mcp"), ("sse", "/sse")])
def test_the_first_generation_of_the_client_is_served(home: Path, kind: str, path: str) -> None:
    python = os.environ.get("REME_TEST_MCP1_PYTHON")
    if not python:
        pytest.skip("REME_TEST_MCP1_PYTHON names no interpreter with mcp 1.x")
    good = token(home, "ci", "--workspace", "team")
    with started(home) as server:
        done = subprocess.run(
            [python, "-W", "ignore", "-c", FIRST_CLIENT, kind, f"{server.url}{path}", good],
            capture_output=True, text=True, timeout=2 * DEADLINE_S,
        )  # fmt: skip
    assert done.stdout.split() == ["3", "False", "r-"], done.stderr
