"""What a model gets to see of a long transcript.

In:  a transcript, a number of tokens.
Out: text within it, in the shape of `transcript.to_text`. How the attempt began, what failed and how it ended stay; the
     middle of long steps and runs of other steps give way, and a mark says how much is missing.
Does not know: what the text is for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from reme_mcp.text.tokens import BYTES_PER_TOKEN, tokens
from reme_mcp.transcripts.transcript import Step, Transcript, block, to_text

FIRST_STEPS = 3
LAST_STEPS = 4
# A step that is cut shorter than this says nothing any more.
MIN_STEP_TOKENS = 30
# Rather than to cut every step shorter than this, those that weigh little are left out.
MIN_OTHER_TOKENS = 120

_SEPARATOR = "\n\n"


def fit(transcript: Transcript, max_tokens: int) -> str:
    """Return the transcript as text of at most `max_tokens`, with a mark wherever something is missing.

    From about 80 tokens on, the last step is there; with 60 for each of them, so are the first steps, the last ones,
    and every failed result with its call.
    """
    text = to_text(transcript)
    if tokens(text) <= max_tokens:
        return text
    steps = transcript.steps
    for length in _halves(max_tokens, MIN_OTHER_TOKENS):
        excerpt = _Excerpt(steps, max_tokens)
        if excerpt.add_all(range(len(steps)), length):
            return excerpt.text()
    weighty = _weighty(steps)
    for length in _halves(max_tokens, MIN_STEP_TOKENS):
        excerpt = _Excerpt(steps, max_tokens)
        if excerpt.add_all(weighty, length):
            break
    users = [index for index, step in enumerate(steps) if step.role == "user"]
    excerpt.add_all([*reversed(users), *reversed(range(len(steps)))], min(length, MIN_OTHER_TOKENS))
    return excerpt.text()


def shorten_middle(text: str, max_tokens: int) -> str:
    """Return `text` without its middle if it is longer than `max_tokens`, with a mark for what is missing.

    Where not even the mark has room, nothing is left.
    """
    if tokens(text) <= max_tokens:
        return text
    mark = f" [… {len(text)} characters left out …] "
    half = (max_tokens * BYTES_PER_TOKEN - len(mark.encode())) // 2
    if half < 0:
        return ""
    encoded = text.encode()
    start = encoded[:half].decode(errors="ignore").rstrip()
    end = encoded[len(encoded) - half :].decode(errors="ignore").lstrip()
    return mark.replace(str(len(text)), str(len(text) - len(start) - len(end))).join((start, end)).strip()


class _Excerpt:
    """Steps that were taken so far, and the room that is left for others."""

    def __init__(self, steps: Sequence[Step], max_tokens: int) -> None:
        self._steps = steps
        self._blocks: dict[int, str] = {}
        self._gap_bytes = len(_gap(len(steps)).encode()) + len(_SEPARATOR)
        # At first all steps are one gap; the last block needs no separator behind it.
        self._room = max_tokens * BYTES_PER_TOKEN + len(_SEPARATOR) - self._gap_bytes

    def add_all(self, indices: Iterable[int], length: int) -> bool:
        """Take the steps that have room, in this order, each shortened to `length` tokens; say whether all had."""
        taken = [self._add(index, length) for index in indices]
        return all(taken)

    def _add(self, index: int, length: int) -> bool:
        if index in self._blocks:
            return True
        shown = shorten_middle(block(self._steps[index]), length)
        gaps = self._is_missing(index - 1) + self._is_missing(index + 1) - 1
        cost = len(shown.encode()) + len(_SEPARATOR) + gaps * self._gap_bytes
        if not shown or cost > self._room:
            return False
        self._blocks[index] = shown
        self._room -= cost
        return True

    def _is_missing(self, index: int) -> bool:
        return 0 <= index < len(self._steps) and index not in self._blocks

    def text(self) -> str:
        if not self._blocks and self._room < 0:
            return ""
        parts: list[str] = []
        after = 0
        for index in sorted(self._blocks):
            if index > after:
                parts.append(_gap(index - after))
            parts.append(self._blocks[index])
            after = index + 1
        if after < len(self._steps):
            parts.append(_gap(len(self._steps) - after))
        return _SEPARATOR.join(parts)


def _gap(count: int) -> str:
    return f"[… {count} step{'s' if count > 1 else ''} left out]"


def _halves(first: int, last: int) -> Iterable[int]:
    """Yield `first` and its halves, and `last` in the end."""
    while first > last:
        yield first
        first //= 2
    yield last


def _weighty(steps: Sequence[Step]) -> list[int]:
    """Return the places of the steps that matter most, those first that are to stay longest."""
    failures = [index for index, step in enumerate(steps) if step.failed]
    calls = _calls(steps)
    pairs = [place for index in failures for place in (index, calls.get(index, index))]
    request = next((index for index, step in enumerate(steps) if step.role == "user"), 0)
    first = range(min(FIRST_STEPS, len(steps)))
    last = range(len(steps) - 1, max(-1, len(steps) - 1 - LAST_STEPS), -1)
    # The first failure may be the cause of the others, and the last one of how it ended.
    return list(dict.fromkeys([len(steps) - 1, *pairs[:2], request, *pairs[-2:], *first, *last, *pairs]))


def _calls(steps: Sequence[Step]) -> dict[int, int]:
    """Return the place of the call behind each result: the oldest open one of the same tool, else the one before."""
    calls: dict[int, int] = {}
    waiting: dict[str, list[int]] = {}
    newest: int | None = None
    for index, step in enumerate(steps):
        if step.role == "call":
            waiting.setdefault(step.tool, []).append(index)
            newest = index
        elif step.role == "result":
            found = waiting[step.tool].pop(0) if waiting.get(step.tool) else newest
            if found is not None:
                calls[index] = found
    return calls
