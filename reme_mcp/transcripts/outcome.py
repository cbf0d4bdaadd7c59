"""How an attempt ended, as far as its transcript says so.

In:  the steps of a transcript.
Out: `success`, `failure` or nothing, with the rule that says so and the words that it found. Pure functions.
Does not know: the pool. An outcome that is not known is never guessed from silence.

The rules, the first that applies:

    words        The user's last words, after which no tool was called, say that it works, thank for it, or say that it
                 does not. Questions, wishes and conditions say nothing; words for both say nothing.
    tests        The last run of tests, after which no file was edited, counts its failures or passes, or has an exit
                 status.

An attempt that the user interrupted last has no outcome.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from reme_mcp.schema import Outcome, one_line
from reme_mcp.transcripts.transcript import Step

Rule = Literal["words", "tests", "none"]
SHOWN_CHARS = 80

_SENTENCE_END = re.compile(r"(?<=[.!?;。！？])\s*|\n+")
# What is asked for, wished for or only supposed.
_NO_FACT = re.compile(
    r"[?？]\s*$"
    r"|\b(?:if|when|once|until|unless|make sure|ensure|should|would|could|can|please|let's|want|need|try)\b"
    r"|如果|请|應該|应该",
    re.IGNORECASE,
)
_FAILS = re.compile(
    r"\b(?:does|do|did|is|are|was|has|have)(?:n't|n’t| not| still not)\s+(?:\w+\s+){0,2}?"
    r"(?:work|help|fix|fixed|working|solved?|right|correct)"
    r"|\bnot (?:working|fixed|solved|right|correct|what i (?:asked|wanted|meant))\b"
    r"|\bstill (?:\w+\s+){0,2}?(?:fail\w*|broken|wrong|crash\w*|errors?|the same|not|doesn't|doesn’t|happening|there)\b"
    r"|\b(?:it|this|that) (?:fails|failed|is broken|is wrong|broke|crashes|crashed|made it worse)\b"
    r"|\bsame (?:error|problem|issue)\b|\b(?:give|giving) up\b|^\s*wrong\b|\brevert (?:it|that|this|everything)\b"
    r"|不行|没用|沒用|不对|不對|还是(?:不|错|报错)|仍然(?:失败|报错)|失败了",
    re.IGNORECASE,
)
_WORKS = re.compile(
    r"\b(?:it|this|that|everything|all|now)(?:'s|’s)? (?:now |all |finally |really |just )?"
    r"(?:works?|worked|working|fixed|solved|correct|perfect|good|green)\b"
    r"|^\s*(?:it |that )?works?\b|^\s*(?:perfect|great|excellent|awesome|brilliant|wonderful|nice|lovely|well done)\b"
    r"|\bthanks?\b|\bthank you\b|\bthx\b|\bgood job\b|\blgtm\b|\bship it\b|\bproblem solved\b"
    r"|谢谢|謝謝|成功了|可以了|搞定|完美",
    re.IGNORECASE,
)
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
    if any(step.role == "call" for step in steps[spoken[-1] :]):
        return None
    verdicts: dict[Outcome, str] = {}
    for sentence in _SENTENCE_END.split(steps[spoken[-1]].text):
        if not sentence.strip() or _NO_FACT.search(sentence):
            continue
        if _FAILS.search(sentence):
            verdicts.setdefault("failure", sentence)
        elif _WORKS.search(sentence):
            verdicts.setdefault("success", sentence)
    if len(verdicts) != 1:
        return None
    ((outcome, words),) = verdicts.items()
    return Inferred(outcome, "words", one_line(words, SHOWN_CHARS))


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
    if last is None or any(s.role == "call" and _EDITS.fullmatch(s.tool) for s in steps[last[2] :]):
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


def _line(text: str, found: re.Match[str]) -> str:
    start = text.rfind("\n", 0, found.start()) + 1
    return text[start:].split("\n", 1)[0]
