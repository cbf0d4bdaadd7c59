"""How an attempt ended, as far as its transcript says so.

In:  the steps of a transcript.
Out: `success`, `failure` or nothing, with the rule that says so and the words that it found. Pure functions.
Does not know: the pool. An outcome that is not known is never guessed from silence.

The rules, the first that applies:

    words        The user's last words, after which no tool was called, say that it works, thank for it, or say that it
                 does not (`verdict.py`). Words that have the work taken back count also where tools did so after them.
    tests        The last run of tests, after which no file was edited and no user complained, counts its failures or
                 passes, or has an exit status.

An attempt that the user interrupted last has no outcome.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from reme_mcp.schema import Outcome, one_line
from reme_mcp.transcripts.transcript import Step
from reme_mcp.transcripts.verdict import verdict_of

Rule = Literal["words", "tests", "none"]
SHOWN_CHARS = 80

_TEST_RUN = re.compile(
    r"\b(?:pytest|py\.test|tox|nox|unittest|jest|vitest|mocha|rspec|phpunit|ctest)\b"
    r"|\b(?:npm|yarn|pnpm|bun)(?: run)? test|\b(?:go|cargo|dotnet|swift|mix|bazel|deno|rake) test\b"
    r"|\b(?:mvnw?|gradlew?)\b[^|;&]*\b(?:test|check|verify)\b|\bmake (?:\S+ )*(?:test|check)\b",
    re.IGNORECASE,
)
_EDITS = re.compile(r"(?:.*[^a-z])?(?:write|edit|multiedit|notebookedit|apply_patch|str_replace\w*|create_file)", re.I)
_FAILED = re.compile(
    r"\b[1-9]\d* (?:tests? |suites? |examples?, [1-9]\d* )?(?:failed|failures?|failing|errors?)\b"
    r"|\bFAILED\b|^(?:---\s)?FAIL\b|\b(?:failures|errors)=[1-9]|test result: FAILED|BUILD FAILURE",
    re.MULTILINE,
)
_PASSED = re.compile(
    r"\b[1-9]\d* (?:tests? )?(?:passed|passing)\b|^ok\s|^OK\b|test result: ok|\b0 failures\b|BUILD SUCCESS",
    re.MULTILINE,
)
_EXIT_STATUS = re.compile(r"\bexit(?:ed with)?(?: code| status)?\\?\"?[:=]?\s*(\d+)|\"exit_code\\?\":\s*(\d+)", re.I)


@dataclass(frozen=True, slots=True)
class Inferred:
    """How it ended, by which rule, and in which words; `outcome` is `None` where nothing says so."""

    outcome: Outcome | None
    rule: Rule
    evidence: str = ""


def infer(steps: Sequence[Step], *, is_interrupted: bool = False) -> Inferred:
    """Return how an attempt ended.

    Args:
        steps: Of its transcript.
        is_interrupted: The user stopped it, and said nothing more.
    """
    if is_interrupted:
        return Inferred(None, "none", "it was interrupted")
    return by_words(steps) or by_tests(steps) or Inferred(None, "none")


def by_words(steps: Sequence[Step]) -> Inferred | None:
    """Return what the user's last words say; `None` if they open the session, or came before more work."""
    spoken = [place for place, step in enumerate(steps) if step.role == "user"]
    if not spoken or not any(step.role != "user" for step in steps[: spoken[-1]]):
        return None
    # What was said in several messages was said at once, where nobody answered between them.
    first = next((p for p in range(spoken[-1], -1, -1) if steps[p].role in ("assistant", "call")), -1)
    verdict = verdict_of("\n".join(steps[place].text for place in spoken if place > first))
    if verdict is None or (not verdict.undoes and any(step.role == "call" for step in steps[spoken[-1] :])):
        return None
    return Inferred(verdict.outcome, "words", one_line(verdict.words, SHOWN_CHARS))


def by_tests(steps: Sequence[Step]) -> Inferred | None:
    """Return what the last run of tests says; `None` if there is none, or files were edited after it."""
    waiting: list[tuple[Step, int]] = []
    last: tuple[Step, Step, int] | None = None
    for place, step in enumerate(steps):
        if step.role == "call":
            waiting.append((step, place))
        elif step.role == "result":
            # Results come in the order of their calls, and name the tool.
            pair = next((pair for pair in waiting if pair[0].tool == step.tool), None)
            if pair is not None:
                waiting.remove(pair)
                if _TEST_RUN.search(pair[0].text) and not _EDITS.fullmatch(step.tool):
                    last = (pair[0], step, pair[1])
    if last is None or any(_outdates(step) for step in steps[last[2] :]):
        return None
    result = last[1]
    statuses = [int(match[1] or match[2]) for match in _EXIT_STATUS.finditer(result.text)]
    if found := _FAILED.search(result.text):
        return Inferred("failure", "tests", one_line(_line(result.text, found), SHOWN_CHARS))
    # That the call failed is not enough: the user may have refused it, and nothing was run.
    if any(statuses):
        return Inferred("failure", "tests", one_line(result.text, SHOWN_CHARS))
    if found := _PASSED.search(result.text):
        return Inferred("success", "tests", one_line(_line(result.text, found), SHOWN_CHARS))
    return Inferred("success", "tests", "exit status 0") if statuses else None


def _outdates(step: Step) -> bool:
    """Say whether a step after a run of tests takes its word away: an edit, or a user who says that it fails."""
    if step.role == "user":
        return (said := verdict_of(step.text)) is not None and said.outcome == "failure"
    return step.role == "call" and _EDITS.fullmatch(step.tool) is not None


def _line(text: str, found: re.Match[str]) -> str:
    start = text.rfind("\n", 0, found.start()) + 1
    return text[start:].split("\n", 1)[0]
