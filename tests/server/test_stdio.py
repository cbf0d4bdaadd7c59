"""The server as a desktop client starts it: a process of its own, two pipes, hardly an environment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters

pytestmark = pytest.mark.anyio
TASK = "Start the engine of the car"
LESSON = {"when_to_use": "Before starting an engine", "content": "Lock all doors and press the brake first."}
DEADLINE_S = 30


def environment(home: Path) -> dict[str, str]:
    # Windows finds no libraries without SYSTEMROOT.
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "SYSTEMROOT") if name in os.environ}
    return kept | {"REME_MCP_HOME": str(home), "REME_MCP_EMBEDDER_PROVIDER": "none"}


def server(home: Path, cwd: Path) -> StdioServerParameters:
    return StdioServerParameters(command=sys.executable, args=["-m", "reme_mcp"], env=environment(home), cwd=cwd)


async def call(one: Client, tool: str, **arguments: object) -> dict[str, Any]:
    answer = await one.call_tool(tool, arguments)
    assert not answer.is_error, answer.content
    return dict(answer.structured_content or {})


@pytest.mark.parametrize(
    ("mode", "folder"),
    [
        ("auto", "home"),
        ("legacy", "höme with späces/内"),
        pytest.param("legacy", "home", marks=pytest.mark.slow),
        pytest.param("auto", "höme with späces/内", marks=pytest.mark.slow),
    ],
)
async def test_the_loop_closes_over_pipes_in_both_eras(tmp_path: Path, mode: str, folder: str) -> None:
    async with Client(server(tmp_path / folder, tmp_path), mode=mode) as one:
        assert len((await one.list_tools()).tools) == 3
        learned = await call(one, "record_trajectory", task=TASK, outcome="failure", experiences=[LESSON])
        recalled = await call(one, "recall_experiences", task=TASK)
        assert [found["id"] for found in recalled["experiences"]] == learned["added"]
        done = await call(one, "record_trajectory", task=TASK, outcome="success", receipt=recalled["receipt"])
        assert [(one["utility"], one["frequency"]) for one in done["settled"]] == [(1, 1)]
        rated = await call(
            one, "rate_experience", experience_id=learned["added"][0], helpful=False, receipt=recalled["receipt"]
        )
        assert (rated["utility"], rated["frequency"]) == (0, 1)


async def test_what_one_process_records_another_recalls_at_once(tmp_path: Path) -> None:
    async with Client(server(tmp_path / "home", tmp_path)) as one, Client(server(tmp_path / "home", tmp_path)) as other:
        assert (await call(other, "recall_experiences", task=TASK))["experiences"] == []
        learned = await call(one, "record_trajectory", task=TASK, outcome="failure", experiences=[LESSON])
        recalled = await call(other, "recall_experiences", task=TASK)
        assert [found["id"] for found in recalled["experiences"]] == learned["added"]
        done = await call(one, "record_trajectory", task=TASK, outcome="success", receipt=recalled["receipt"])
        assert [found["id"] for found in done["settled"]] == learned["added"]


# --- by hand, line by line ---


class Pipes:
    """A client that writes and reads lines."""

    def __init__(self, home: Path, cwd: Path, **environ: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "reme_mcp"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=environment(home) | environ, cwd=cwd,
        )  # fmt: skip
        self.lines: list[bytes] = []

    def send(self, line: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + b"\n")
        self.process.stdin.flush()

    def request(self, id: int, method: str, **params: object) -> None:
        self.send(json.dumps({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).encode())

    def answer(self, id: int) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            message: dict[str, Any] = json.loads(line)
            if message.get("id") == id:
                return message
        raise AssertionError("the server closed its output")

    def next(self) -> dict[str, Any]:
        """The next answer, whatever it answers."""
        assert self.process.stdout is not None
        while True:
            message: dict[str, Any] = json.loads(self.process.stdout.readline())
            if "method" not in message:
                return message

    def shake_hands(self) -> None:
        info = {"name": "by-hand", "version": "1"}
        self.request(0, "initialize", protocolVersion="2025-06-18", capabilities={}, clientInfo=info)
        assert self.answer(0)["result"]["serverInfo"]["name"] == "reme-mcp"
        self.send(b'{"jsonrpc":"2.0","method":"notifications/initialized"}')


def with_fastembed(tmp_path: Path, source: str) -> Pipes:
    """Start a server for which this is the library that loads the model."""
    library = tmp_path / "library" / "fastembed"
    library.mkdir(parents=True)
    (library / "__init__.py").write_text(textwrap.dedent(source))
    path = os.pathsep.join([str(library.parent), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    return Pipes(tmp_path / "home", tmp_path, PYTHONPATH=path, REME_MCP_EMBEDDER_PROVIDER="fastembed")


@pytest.fixture
def pipes(tmp_path: Path) -> Iterator[Pipes]:
    pipes = Pipes(tmp_path / "home", tmp_path)
    pipes.shake_hands()
    yield pipes
    if pipes.process.poll() is None:
        pipes.process.kill()
    pipes.process.communicate()


def test_it_ends_with_its_input_and_says_nothing_but_the_protocol(pipes: Pipes) -> None:
    pipes.request(1, "tools/list")
    pipes.answer(1)
    pipes.request(2, "tools/call", name="recall_experiences", arguments={"task": TASK})
    pipes.answer(2)
    started = time.monotonic()
    rest, _ = pipes.process.communicate(timeout=DEADLINE_S)
    assert time.monotonic() - started < 5
    assert pipes.process.returncode == 0
    for line in [*pipes.lines, *rest.splitlines()]:
        assert json.loads(line)["jsonrpc"] == "2.0"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
def test_it_ends_at_once_when_it_is_interrupted_whether_its_client_writes_or_not(pipes: Pipes) -> None:
    pipes.request(1, "tools/call", name="record_trajectory", arguments={"task": TASK, "outcome": "success"})
    pipes.answer(1)
    pipes.process.send_signal(signal.SIGINT)
    assert pipes.process.wait(DEADLINE_S) == 130
    assert pipes.process.stderr is not None
    assert pipes.process.stderr.read() == b""


def test_nobody_else_reads_what_the_client_writes(tmp_path: Path) -> None:
    # A library that is imported behind the handshake, and starts a program that reads its stdin.
    pipes = with_fastembed(
        tmp_path,
        """
        import subprocess, sys
        print(subprocess.run(['cat'], stdout=subprocess.PIPE).stdout, file=sys.stderr, flush=True)
        raise ImportError('no model')
        """,
    )
    try:
        pipes.shake_hands()
        pipes.request(1, "tools/list")
        pipes.answer(1)
        assert pipes.process.stderr is not None
        assert pipes.process.stderr.readline() == b"b''\n"
        pipes.request(2, "tools/list")
        assert pipes.answer(2)["result"]["tools"]
    finally:
        pipes.process.kill()
        pipes.process.communicate()


def recall_line(id: object, task: str) -> str:
    """One line that recalls; `task` is JSON."""
    arguments = f'{{"name":"recall_experiences","arguments":{{"task":{task}}}}}'
    return f'{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{arguments}}}'


# a line; the id of each answer, with the code of its error or 0
NO_MESSAGES: dict[str, tuple[bytes, list[tuple[object, int]]]] = {
    "empty": (b"", []),
    "white space": (b" \t", []),
    "words": (b"not json", [(None, -32700)]),
    "no utf-8": (b"\xff\xfe\x00", [(None, -32700)]),
    "no utf-8 in a text": (recall_line(20, '"a \xff b"').encode("latin-1"), [(20, 0)]),
    "half a message": (b'{"jsonrpc":"2.0"}', [(None, -32600)]),
    "an id alone": (b'{"jsonrpc":"2.0","id":21}', [(21, -32600)]),
    "params in a list": (b'{"jsonrpc":"2.0","id":22,"method":"ping","params":[1]}', [(22, -32600)]),
    "cut off": (recall_line(23, '"x').encode()[:-30], [(23, -32700)]),
    "id at the end": (b'{"method":"ping","params":{"id":1,"a":[{"id":2}]},"id":"x-24",}', [("x-24", -32700)]),
    "an answer to nobody": (b'{"jsonrpc":"2.0","id":25,"result":{', [(None, -32700)]),
    "unknown method": (b'{"jsonrpc":"2.0","id":26,"method":"no/such"}', [(26, -32601)]),
    "deep": (recall_line(27, "[" * 500 + "]" * 500).encode(), [(27, -32700)]),
    "very deep": (b"{" * 100_000, [(None, -32700)]),
    "10 MB": (b"x" * 10_000_000, [(None, -32700)]),
    "huge number": (recall_line(28, "1" * 5_000).encode(), [(28, -32700)]),
    "byte order mark": ("\ufeff".encode() + recall_line(29, '"x"').encode(), [(29, 0)]),
    "half a pair": (recall_line(30, r'"cut \ud83d"').encode(), [(30, 0)]),
    "the other half": (recall_line('"y-31"', r'"\udc00\ud800 \ud83d\ude80 \\\\ud800"').encode(), [("y-31", 0)]),
    "batch": (f"[{recall_line(32, '1')},{recall_line(33, '2')},7]".encode(), [(32, 0), (33, 0), (None, -32600)]),
    "batch with half a pair": (b"[" + recall_line(34, r'"\ud800"').encode() + b"]", [(34, 0)]),
    "a value that a client lost": (recall_line(35, '"x","context":').encode(), [(35, -32700)]),
    "its id behind those in it": (b'{"method":"x","params":{"id":3,"params":[{"id":4}]},"id":36,}', [(36, -32700)]),
    "a brace": (b"{", [(None, -32700)]),
    "empty batch": (b"[]", [(None, -32600)]),
}  # fmt: skip


def test_every_line_that_is_no_message_is_answered_and_the_next_one_as_well(pipes: Pipes) -> None:
    for number, (name, (line, expected)) in enumerate(NO_MESSAGES.items(), start=100):
        pipes.send(line)
        pipes.request(number, "ping")
        answers = [pipes.next() for _ in range(len(expected) + 1)]
        assert {(one["id"], one.get("error", {}).get("code", 0)) for one in answers} == {*expected, (number, 0)}, name


def test_nothing_heavy_is_imported_before_the_tools_are_listed(tmp_path: Path) -> None:
    code = """
        import sys
        import reme_mcp.cli.serve, reme_mcp.server.app, reme_mcp.server.tools
        from reme_mcp.config.load import load_settings
        reme_mcp.server.app.build_server(load_settings(environ={}))
        [tool.listing() for tool in reme_mcp.server.tools.TOOLS]
        heavy = {"lancedb", "pyarrow", "numpy", "fastembed", "onnxruntime", "openai", "rich"}
        heavy |= {"prometheus_client", "jwt"}  # uvicorn and starlette come with mcp
        heavy |= {f"reme_mcp.{folder}" for folder in ("memory", "recall", "refine", "store", "models", "transcripts")}
        print(sorted(heavy & set(sys.modules)))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.strip() == "[]"


OTHER_CLIENT = """
    import asyncio, json, sys
    from mcp import ClientSession, StdioServerParameters
    from mcp.client.stdio import stdio_client

    async def main():
        parameters = StdioServerParameters(command=sys.argv[1], args=["-m", "reme_mcp"], env=json.loads(sys.argv[2]))
        async with stdio_client(parameters) as (read, write), ClientSession(read, write) as session:
            await session.initialize()
            lesson = {"when_to_use": "Before starting an engine", "content": "Lock all doors first, then brake."}
            learned = await session.call_tool(
                "record_trajectory", {"task": "start it", "outcome": "failure", "experiences": [lesson]})
            recalled = await session.call_tool("recall_experiences", {"task": "before starting the engine"})
            id = recalled.structuredContent["experiences"][0]["id"]
            assert [id] == learned.structuredContent["added"]
            rated = await session.call_tool("rate_experience", {"experience_id": id, "helpful": True})
            print(rated.structuredContent["utility"])

    asyncio.run(main())
"""


def test_a_client_of_another_make_uses_all_three_tools(tmp_path: Path) -> None:
    python = os.environ.get("REME_TEST_MCP1_PYTHON")
    if not python:
        pytest.skip("REME_TEST_MCP1_PYTHON names no interpreter with mcp 1.x")
    arguments = [sys.executable, json.dumps(environment(tmp_path / "home"))]
    done = subprocess.run(
        [python, "-c", textwrap.dedent(OTHER_CLIENT), *arguments],
        capture_output=True, text=True, check=False, timeout=DEADLINE_S,
    )  # fmt: skip
    assert (done.returncode, done.stdout.strip()) == (0, "1"), done.stderr


async def test_what_was_read_is_finished_when_the_client_leaves(tmp_path: Path) -> None:
    parts: list[dict[str, Any]] = [
        {"id": 0, "method": "initialize", "params": {"protocolVersion": "2025-06-18", "capabilities": {},
         "clientInfo": {"name": "by-hand", "version": "1"}}},
        {"method": "notifications/initialized"},
        {"id": 1, "method": "tools/call", "params": {"name": "record_trajectory", "arguments": {
         "task": TASK, "outcome": "success", "experiences": [LESSON]}}},
    ]  # fmt: skip
    given = b"".join(json.dumps({"jsonrpc": "2.0", **part}).encode() + b"\n" for part in parts)
    command = [sys.executable, "-m", "reme_mcp"]
    environ = environment(tmp_path / "home")
    done = subprocess.run(  # noqa: ASYNC221
        command, input=given, env=environ, cwd=tmp_path, capture_output=True, timeout=DEADLINE_S, check=False
    )
    assert done.returncode == 0, done.stderr
    answers = {one["id"]: one for one in map(json.loads, done.stdout.splitlines()) if "id" in one}
    assert answers[1]["result"]["structuredContent"]["added"]


# In the place of fastembed: a model that never gets ready, inside onnxruntime nearly all of the time, which must not
# come back into an interpreter that is being taken down; and a machine so busy that taking it down takes a while.
MODEL_THAT_LOADS_LONG = """
    import sys, time
    from onnxruntime import InferenceSession

    def field(number, value):
        data = value if isinstance(value, bytes) else value.encode()
        return bytes([number << 3 | 2, len(data)]) + data

    def shaped(name):
        one = field(1, b"\\x08\\x01" + field(2, field(1, b"\\x08\\x01")))
        return field(1, name) + field(2, one)

    node = field(1, "x") + field(2, "y") + field(4, "Identity")
    graph = field(1, node) + field(2, "g") + field(11, shaped("x")) + field(12, shaped("y"))
    MODEL = b"\\x08\\x08" + field(7, graph) + field(8, field(1, "") + b"\\x10\\x0d")

    class TextEmbedding:
        @staticmethod
        def list_supported_models():
            return [{"model": "BAAI/bge-small-en-v1.5"}]

        def __init__(self, *given, **options):
            InferenceSession(MODEL, providers=["CPUExecutionProvider"])
            print("loading", file=sys.stderr, flush=True)
            while True:
                InferenceSession(MODEL, providers=["CPUExecutionProvider"])

    class Busy:
        def __del__(self, sleep=time.sleep):
            sleep(0.3)

    busy = Busy()
"""


def test_a_client_may_leave_while_the_model_is_loading(tmp_path: Path) -> None:
    pipes = with_fastembed(tmp_path, MODEL_THAT_LOADS_LONG)
    try:
        pipes.shake_hands()
        # Nothing is loaded before that.
        pipes.request(1, "tools/list")
        pipes.answer(1)
        assert pipes.process.stderr is not None
        while (line := pipes.process.stderr.readline()) != b"loading\n":
            assert line, "the server ended before it loaded the model"
        arguments = {"task": TASK, "outcome": "success", "experiences": [LESSON]}
        pipes.request(2, "tools/call", name="record_trajectory", arguments=arguments)
        # Whatever was read is answered, and comes out, before the process ends.
        rest, trouble = pipes.process.communicate(timeout=DEADLINE_S)
    finally:
        pipes.process.kill()
        pipes.process.communicate()
    assert (pipes.process.returncode, trouble) == (0, b"")
    [answer] = [one for one in map(json.loads, rest.splitlines()) if one.get("id") == 2]
    assert answer["result"]["structuredContent"]["added"]
