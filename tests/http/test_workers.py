"""A server of several processes: whichever of them answers, it is one server, and it ends as one."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Container, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from multiprocessing.context import SpawnProcess
from pathlib import Path
from threading import Event
from typing import Any, Literal

import httpx
import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from reme_mcp.http.workers import MAX_DEATHS, Work, supervise
from reme_mcp.server.apps import EXTENSION, MIME_TYPE
from tests.hosted import DEADLINE_S, JSON, bearer
from tests.http import worker_cases
from tests.http.middleware_cases import META
from tests.http.test_app import Process, arguments, started, token
from tests.http_server import Asked, Reply, reply
from tests.http_server import serving as answering
from tests.server.test_stdio import environment

A_MINUTE = 200
MODERN = JSON | {"mcp-protocol-version": "2026-07-28"}
LESSON = {
    "when_to_use": "Start the engine of a cold car",
    "content": "Turn the key halfway and wait for the glow plugs.",
}


def until(what: Callable[[], bool]) -> None:
    """Wait until it is so."""
    deadline = time.monotonic() + DEADLINE_S
    while not what():
        assert time.monotonic() < deadline, "it never was so"
        time.sleep(0.02)


def answered_by(server: Process, answer: httpx.Response) -> int:
    """Return the process that has answered a request, by the log."""
    id = answer.headers["x-request-id"]
    lines: list[dict[str, Any]] = []

    def is_logged() -> bool:
        lines[:] = [line for line in map(json.loads, list(server.log)) if line.get("request_id") == id]
        return bool(lines)

    until(is_logged)
    return int(lines[0]["pid"])


@contextmanager
def one_each(server: Process, count: int, token: str | None = None) -> Iterator[dict[int, httpx.Client]]:
    """Yield a client for each of so many workers, by its process id: its connection stays with it."""
    deadline = time.monotonic() + DEADLINE_S
    with ExitStack() as stack:
        clients: dict[int, httpx.Client] = {}
        while len(clients) < count:
            assert time.monotonic() < deadline, clients
            http = httpx.Client(base_url=server.url, headers=bearer(token), verify=False, timeout=DEADLINE_S)
            clients.setdefault(answered_by(server, stack.enter_context(http).get("/nowhere")), http)
        yield clients


def ask(http: httpx.Client, method: str, name: str, params: dict[str, object]) -> dict[str, Any]:
    """Return the result of one request of the modern era, by a client that renders Apps."""
    capabilities = {"extensions": {EXTENSION: {"mimeTypes": [MIME_TYPE]}}}
    meta = META | {"io.modelcontextprotocol/clientCapabilities": capabilities}
    headers = MODERN | {"mcp-method": method, "mcp-name": name}
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params | {"_meta": meta}}
    answer = http.post("/mcp", json=body, headers=headers)
    text = answer.text.partition("data:")[2] if "event-stream" in answer.headers["content-type"] else answer.text
    result: dict[str, Any] = json.loads(text)["result"]
    return result


def call(http: httpx.Client, tool: str, **given: object) -> dict[str, Any]:
    result = ask(http, "tools/call", tool, {"name": tool, "arguments": given})
    assert not result.get("isError"), result
    structured: dict[str, Any] = result["structuredContent"]
    return structured


def said(server: Process) -> list[str]:
    return [str(json.loads(line)["message"]) for line in list(server.log)]


def serving(server: Process) -> list[int]:
    """Return the workers that have said that they serve, in the order in which they did."""
    return [int(found[1]) for found in (re.fullmatch(r"worker (\d+) serves", one) for one in said(server)) if found]


def is_listening(server: Process) -> bool:
    """Return whether a process is left that would answer."""
    try:
        socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE_S).close()
    except ConnectionError:
        return False
    return True


# --- one server ---


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A server of two processes; each test brings a token of its own."""
    folder = tmp_path_factory.mktemp("workers")
    token(folder / "home", "first", "--workspace", "none")
    variables = {"HOME": str(folder), "REME_MCP_HTTP_REQUESTS_PER_MINUTE": str(A_MINUTE), "REME_MCP_LOG_LEVEL": "info"}
    with started(folder / "home", "--http", "--workers", "2", **variables) as server:
        until(lambda: len(serving(server)) == 2)
        yield server


def token_for(server: Process, workspace: str, role: str = "admin") -> str:
    return token(server.home, workspace, "--workspace", workspace, "--role", role)


def test_what_one_worker_writes_the_next_call_at_the_other_sees(server: Process) -> None:
    with one_each(server, 2, token_for(server, "seen")) as clients:
        (_, one), (_, other) = clients.items()
        for here, there in ((one, other), (other, one)):
            recalled = call(here, "recall_experiences", task="Start the car")
            lesson = LESSON | {"content": f"{LESSON['content']} It takes {10 * (here is one) + 10} seconds."}
            recorded = call(
                there, "record_trajectory", task="Start the car", outcome="success", receipt=recalled["receipt"],
                experiences=[lesson],
            )  # fmt: skip
            ids = [*recorded["added"], *(merged["id"] for merged in recorded["merged"])]
            seen = call(here, "recall_experiences", task="Start the car")["experiences"]
            assert set(ids) <= {note["id"] for note in seen}
            rated = call(here, "rate_experience", experience_id=ids[0], helpful=True)
            assert rated["experience_id"] == ids[0]


@pytest.mark.anyio
@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_client_is_served_whichever_worker_answers(server: Process, mode: Literal["auto", "legacy"]) -> None:
    before = len(server.log)
    # Each request comes over a connection of its own.
    limits, headers = httpx2.Limits(max_keepalive_connections=0), bearer(token_for(server, mode))
    async with (
        httpx2.AsyncClient(headers=headers, limits=limits, timeout=DEADLINE_S) as http,
        Client(streamable_http_client(f"{server.url}/mcp", http_client=http), mode=mode) as one,
    ):
        assert len((await one.list_tools()).tools) == 3
        pids: set[int] = set()
        while len(pids) < 2:
            recalled = await one.call_tool("recall_experiences", {"task": "Start the car"})
            assert not recalled.is_error
            lines = [json.loads(line) for line in server.log[before:]]
            pids = {line["pid"] for line in lines if line.get("holder") == mode and line["method"] == "POST"}
    assert all(line["status"] < 400 or line["method"] != "POST" for line in lines if line.get("holder") == mode)


def test_a_person_signs_in_at_one_worker_and_decides_at_the_other(server: Process) -> None:
    key = token_for(server, "page")
    with one_each(server, 2, key) as clients:
        added = call(
            next(iter(clients.values())), "record_trajectory", task="x", outcome="success", experiences=[LESSON]
        )
    with one_each(server, 2) as clients:
        (first, one), (second, other) = clients.items()

        def form_token(http: httpx.Client, path: str) -> str:
            found = re.search(r'name="token" value="(\w+)"', http.get(path).text)
            assert found is not None
            return found[1]

        form = form_token(one, "/ui/login")
        other.cookies = one.cookies
        answer = other.post("/ui/login", data={"token": form, "key": key})
        assert (answer.status_code, answer.headers["location"]) == (303, "/ui/")
        one.cookies = other.cookies
        here = f"/ui/lesson/{added['added'][0]}"
        form = form_token(one, here)
        done = other.post("/ui/do/pin", data={"token": form, "id": added["added"][0], "back": here})
        assert (done.status_code, done.headers["location"].partition("?")[0]) == (303, here)
        assert "Unpin" in one.get(here).text
        assert other.post("/ui/do/pin", data={"token": "x" * 64, "id": added["added"][0]}).status_code == 403
        assert [answered_by(server, http.get(here)) for http in (one, other)] == [first, second]


def test_a_button_of_an_app_reaches_whichever_worker_answers(server: Process) -> None:
    with one_each(server, 2, token_for(server, "app")) as clients:
        one, other = clients.values()
        uri = "ui://reme/notes"
        document = ask(one, "resources/read", uri, {"uri": uri})["contents"][0]["text"]
        key = re.search(r'data-key="([^"]+)"', document)
        assert key is not None
        assert "html" in call(other, "reme_notes", key=key[1])
        assert ask(other, "tools/call", "reme_notes", {"name": "reme_notes", "arguments": {"key": "guessed"}})[
            "isError"
        ]


def test_a_limit_is_that_of_the_server_not_of_a_worker(server: Process) -> None:
    begun = time.monotonic()
    with one_each(server, 2, token_for(server, "greedy")) as clients:
        one, other = clients.values()
        let_in = 0
        while one.get("/nowhere").status_code == other.get("/nowhere").status_code == 404:
            let_in += 2
        came_back = (time.monotonic() - begun) * A_MINUTE / 60
        assert let_in <= A_MINUTE + came_back
        # Neither has a share of its own.
        assert let_in > A_MINUTE / 2 + came_back


def test_the_numbers_are_those_of_all_workers(server: Process) -> None:
    def answered(http: httpx.Client) -> float:
        found = re.search(
            r'^reme_http_requests_total\{method="GET",path="other",status="404"\} (\S+)$',
            http.get("/metrics").text,
            re.M,
        )
        assert found is not None
        return float(found[1])

    with one_each(server, 2, token_for(server, "metrics")) as clients:
        one, other = clients.values()
        before = answered(one)
        assert [http.get("/nowhere").status_code for http in (one, other, other)] == [404] * 3
        # Each counts an answer once it is sent.
        until(lambda: [answered(one) - before, answered(other) - before] == [3, 3])


# --- its life ---


def test_a_worker_that_is_killed_is_replaced_and_those_who_call_do_not_notice(server: Process) -> None:
    key = token_for(server, "killed")
    with one_each(server, 2, key) as clients:
        (killed, _), (left, stays) = clients.items()
        os.kill(killed, signal.SIGKILL)
        for _ in range(5):
            assert call(stays, "recall_experiences", task="Start the car")["receipt"]
            with httpx.Client(base_url=server.url, headers=bearer(key), verify=False, timeout=DEADLINE_S) as anew:
                assert call(anew, "recall_experiences", task="Start the car")["receipt"]
    until(lambda: len(serving(server)) == 3)
    assert f"worker {killed} ended (exit status -9); another takes its place" in said(server)
    with one_each(server, 2, key) as clients:
        assert set(clients) == {left, serving(server)[-1]}
        for http in clients.values():
            assert call(http, "recall_experiences", task="Start the car")["receipt"]


@contextmanager
def held_call(home: Path, **variables: str) -> Iterator[tuple[Process, dict[int, httpx.Client], Callable[[], str]]]:
    """Yield a server of two workers, a client of each, and what lets a call end that the first has under way."""
    asked, told = Event(), Event()

    def slow(_: Asked) -> Reply:
        asked.set()
        assert told.wait(DEADLINE_S)
        return reply({"error": {"message": "no such model"}}, 404)

    messages = [{"role": "user", "content": "go"}, {"role": "assistant", "content": "went"}]
    with answering(slow) as model, ThreadPoolExecutor() as threads:
        variables |= {"REME_MCP_LLM_BASE_URL": model.base_url, "REME_MCP_LLM_MODEL": "m", "REME_MCP_LLM_WAIT": "true"}
        with started(home, "--http", "--workers", "2", REME_MCP_LOG_LEVEL="info", **variables) as server:
            until(lambda: len(serving(server)) == 2)
            with one_each(server, 2) as clients:
                http = next(iter(clients.values()))
                under_way = threads.submit(
                    call, http, "record_trajectory", task="Start the car", outcome="failure", messages=messages
                )

                def end() -> str:
                    assert not under_way.done()
                    told.set()
                    return str(under_way.result(DEADLINE_S)["status"])

                try:
                    assert asked.wait(DEADLINE_S)
                    yield server, clients, end
                finally:
                    told.set()


def test_a_worker_that_ends_leaves_new_connections_to_the_others(home: Path) -> None:
    with held_call(home) as (server, clients, end_call), one_each(server, 2) as idle:
        ending, stays = clients
        os.kill(ending, signal.SIGTERM)
        until(lambda: idle[ending].get("/nowhere").status_code == 503)
        anew = [httpx.get(f"{server.url}/nowhere", timeout=DEADLINE_S) for _ in range(20)]
        assert [answer.status_code for answer in anew] == [404] * 20
        assert {answered_by(server, answer) for answer in anew} == {stays}
        assert end_call() == "queued"


def test_workers_end_with_a_parent_that_is_killed_and_leave_nothing_behind(home: Path, tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    with held_call(home, TMPDIR=str(temporary)) as (server, _, end_call):
        assert [*temporary.glob("reme-mcp-*")]
        server.popen.kill()
        until(lambda: not is_listening(server))
        # Who starts it anew need not wait for the call.
        assert end_call() == "queued"
        until(lambda: not [*temporary.glob("reme-mcp-*")])


@pytest.mark.slow
def test_a_new_home_is_made_once_by_four_workers(home: Path) -> None:
    with started(home, "--http", "--workers", "4", REME_MCP_LOG_LEVEL="info") as server:
        until(lambda: len(serving(server)) == 4)
        with one_each(server, 4) as clients:
            ids = [
                call(http, "record_trajectory", task=f"task {pid}", outcome="success", steps=f"went {pid}")[
                    "trajectory_id"
                ]
                for pid, http in clients.items()
            ]
            assert len(set(ids)) == 4
        assert server.stop() == 0
        assert not is_listening(server)
    assert [line for line in server.log if json.loads(line)["level"] not in ("info", "debug")] == []


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        (("--transport", "sse", "--workers", "2"), 1, "http.workers = 1, or serve --http"),
        (("--workers", "2"), 2, "--workers and --without-auth go with --http"),
        (("--http", "--workers", "65"), 2, "65 is not in the range 1<=x<=64"),
    ],
)
def test_what_cannot_be_served_so_is_refused(home: Path, options: tuple[str, ...], status: int, said: str) -> None:
    done = subprocess.run(arguments("serve", *options), env=environment(home), capture_output=True, text=True)
    assert (done.returncode, done.stderr.count(said), "Traceback" in done.stderr) == (status, 1, False), done.stderr


def test_a_port_that_is_taken_is_told_once(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            arguments("serve", "--http", "--workers", "4", "--port", port), env=environment(home),
            capture_output=True, text=True,
        )  # fmt: skip
    assert (done.returncode, done.stderr.count("another program listens there")) == (1, 1)
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("work", "without_room", "deaths", "said"),
    [
        (worker_cases.dies_at_start, (), 1, "before any served"),
        (worker_cases.dies_when_it_serves, range(99), 1, "before any served"),
        (worker_cases.dies_when_it_serves, range(2, 99), MAX_DEATHS, "in a minute"),
        (worker_cases.dies_when_it_serves, {3}, MAX_DEATHS, "in a minute"),
    ],
)
def test_where_every_worker_dies_or_the_system_has_no_room_for_it_the_server_ends(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    work: Work,
    without_room: Container[int],
    deaths: int,
    said: str,
) -> None:
    start, starts = SpawnProcess.start, [0]
    died: list[int] = []

    def start_if_there_is_room(process: SpawnProcess) -> None:
        starts[0] += 1
        if starts[0] in without_room:
            raise OSError(errno.EAGAIN, "no room")
        start(process)

    monkeypatch.setattr(SpawnProcess, "start", start_if_there_is_room)
    monkeypatch.setattr("reme_mcp.http.workers.NO_ROOM_S", 0.0)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        status = supervise(listener, 2, work, on_death=lambda number, pid: died.append(pid), stop_timeout_s=DEADLINE_S)
    lines = [record.getMessage() for record in caplog.records]
    not_started = sum("of 2 can't be started (no room)" in line for line in lines)
    ended = sum("ended (exit status" in line for line in lines)
    assert (status, not_started + ended) == (1, deaths)
    assert not_started == sum(number in without_room for number in range(1, starts[0] + 1))
    # Nothing has to be forgotten of one that was not started, nor where the server ends.
    assert len(died) == ended - ("ended" in lines[-1])
    assert said in lines[-1]
