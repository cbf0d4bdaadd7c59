r"""Lines on stdin that are no message: mended where it is plain what was meant, answered in any case.

In:  what the SDK read from stdin, messages and the errors of those lines that it could not read.
Out: messages for the server; an error to the client for each line that is none, with the id of its request where it
     can be told. Silence would have the client wait for its timeout.
Does not know: what a message asks for.

Mended are a byte order mark, half a surrogate pair (`"\ud83d"`, which a JavaScript `slice` leaves behind), and a batch,
whose messages are taken one by one.

Source: JSON-RPC 2.0, section 5.1; the specification of MCP, 2025-03-26, for batches.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType

import anyio
from mcp.shared._stream_protocols import ReadStream, WriteStream
from mcp.shared.message import SessionMessage
from mcp.types import (
    INVALID_REQUEST,
    PARSE_ERROR,
    ErrorData,
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCRequest,
    JSONRPCResponse,
    jsonrpc_message_adapter,
)
from pydantic import ValidationError

SHOWN_CHARS = 100
# How long a client that has left is still worked for: what was read is finished. The first call of a process on a busy
# machine opens the pool in some seconds; who wants the process gone earlier ends it.
LEAVE_S = 30.0

_ESCAPE = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<half>\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\."
)
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+"?|[{}\[\]:,]|[^\s"{}\[\]:,]+')


class Answers:
    """The stream of answers, which knows to which requests none has been given yet."""

    def __init__(self, stream: WriteStream[SessionMessage]) -> None:
        self._stream = stream
        self._open: set[int | str] = set()
        self._given = anyio.Event()

    def expect(self, item: SessionMessage | Exception) -> None:
        """Know of a request. Who listens for changes gets no answer."""
        message = item.message if isinstance(item, SessionMessage) else None
        if isinstance(message, JSONRPCRequest) and message.method != "subscriptions/listen":
            self._open.add(message.id)

    async def all_given(self) -> None:
        """Wait until each request has its answer."""
        while self._open:
            await self._given.wait()

    async def send(self, item: SessionMessage, /) -> None:
        """Send a message."""
        await self._stream.send(item)
        if isinstance(item.message, JSONRPCResponse | JSONRPCError) and item.message.id is not None:
            self._open.discard(item.message.id)
            self._given.set()
            self._given = anyio.Event()

    async def aclose(self) -> None:
        """Close the stream."""
        await self._stream.aclose()

    async def __aenter__(self) -> Answers:
        """Open the stream."""
        await self._stream.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        """Close the stream."""
        return await self._stream.__aexit__(kind, exc, trace)


@asynccontextmanager
async def answering_rubbish(
    read_stream: ReadStream[SessionMessage | Exception], write_stream: Answers
) -> AsyncIterator[ReadStream[SessionMessage | Exception]]:
    """Yield the messages of `read_stream`; what is none is answered on `write_stream`.

    They end when `read_stream` has ended and `answers` has seen an answer to each request, or after `LEAVE_S`.
    """
    sender, messages = anyio.create_memory_object_stream[SessionMessage | Exception](0)

    async def pass_on() -> None:
        async with sender:
            async for item in read_stream:
                if not isinstance(item, ValidationError):
                    write_stream.expect(item)
                    await sender.send(item)
                    continue
                for message in read_again(item):
                    if isinstance(message, JSONRPCError):
                        await write_stream.send(SessionMessage(message))
                    else:
                        write_stream.expect(SessionMessage(message))
                        await sender.send(SessionMessage(message))
            with anyio.move_on_after(LEAVE_S):
                await write_stream.all_given()

    async with anyio.create_task_group() as tasks, messages:
        tasks.start_soon(pass_on)
        yield messages
        tasks.cancel_scope.cancel()


def read_again(exc: ValidationError) -> list[JSONRPCMessage]:
    """Return the messages of a line that could not be read as one, an error for each that is none.

    An empty line asks for nothing, and gets nothing.
    """
    line = _not_json(exc)
    if line is None:
        return _of_value(_value(exc), exc)
    bare = line.strip().lstrip("\ufeff")
    if not bare:
        return []
    mended = _ESCAPE.sub(lambda found: r"\ufffd" if found["half"] else found[0], bare)
    if mended != line.strip():
        try:
            return [jsonrpc_message_adapter.validate_json(mended, by_name=False)]
        except ValidationError as again:
            exc = again
            if _not_json(exc) is None:
                return _of_value(_value(exc), exc)
    why = exc.errors(include_url=False)[0]["msg"].removeprefix("Invalid JSON: ")
    return [_error(_id_in(bare), PARSE_ERROR, f"this line is not JSON: {why[:SHOWN_CHARS]}")]


def _not_json(exc: ValidationError) -> str | None:
    """Return the line that is not JSON; `None` where it is, but no message."""
    error = exc.errors(include_url=False)[0]
    return error["input"] if error["type"] == "json_invalid" else None


def _value(exc: ValidationError) -> object:
    """Return the value that is no message: each kind of message misses something in it."""
    errors = exc.errors(include_url=False)
    return next((error["input"] for error in errors if error["type"] == "missing"), errors[0]["input"])


def _of_value(value: object, exc: ValidationError) -> list[JSONRPCMessage]:
    if isinstance(value, list) and value:
        return [message for part in value for message in _part(part)]
    known = value if isinstance(value, dict) else {}
    id = None if _is_answer(known) else _usable(known.get("id"))
    what = "an empty batch" if value == [] else 'no message of JSON-RPC: jsonrpc "2.0", id, method, params as an object'
    return [_error(id, INVALID_REQUEST, f"this line is {what}")]


def _part(part: object) -> list[JSONRPCMessage]:
    try:
        return [jsonrpc_message_adapter.validate_python(part, by_name=False)]
    except ValidationError as exc:
        return _of_value({} if isinstance(part, list) else part, exc)


def _id_in(text: str) -> int | str | None:
    """Return the id of the request that a line began to be, as far as it can be read."""
    found: dict[str, str] = {}
    depth, key, is_key = 0, "", False
    for token in (one[0] for one in _TOKEN.finditer(text)):
        if token in "}]":
            depth -= 1
        if depth == 1:
            if token == ",":
                is_key = True
            elif token == ":":
                is_key = False
            elif is_key:
                key = token.strip('"')
            else:
                found[key] = token
        if token in "{[":
            depth += 1
            is_key = depth == 1 and token == "{"
    if _is_answer(found):
        return None
    id = found.get("id", "")
    if re.fullmatch(r"-?\d{1,18}", id):
        return int(id)
    return id[1:-1] if re.fullmatch(r'"[^"\\]*"', id) else None


def _is_answer(message: dict[str, object] | dict[str, str]) -> bool:
    """Return whether it answers a request of ours: its id is none of the client's."""
    return "method" not in message and ("result" in message or "error" in message)


def _usable(id: object) -> int | str | None:
    return id if isinstance(id, int | str) and not isinstance(id, bool) else None


def _error(id: int | str | None, code: int, message: str) -> JSONRPCError:
    return JSONRPCError(jsonrpc="2.0", id=id, error=ErrorData(code=code, message=message))
