"""What the words of a user say about the work before them.

In:  a message of a user.
Out: success, failure or nothing, with the words that say so; and where the next request begins in the message.
Does not know: transcripts, tools, tests.

A message is cut into sentences, those into what stands before and after a "but", and those into clauses. Quotations and
code are not the user's voice. A sentence that asks, wishes, supposes or doubts says nothing, nor does one whose thanks
are mere politeness ("now write the docs, thanks"). In a clause a negation turns "works" into its opposite. Where a
message says both, it says nothing: no outcome is better than a wrong one.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace

from reme_mcp.schema import Outcome
from reme_mcp.transcripts.languages import BUT, GO_ON, LANGUAGES, NEW_TASK, Language

# In a longer message, a verdict stands in its first or its last so many characters.
READ_CHARS = 2_000
# Words before thanks or praise that a clause may have for them to be meant.
MAX_WORDS_BEFORE = 2
# What has no spaces between words counts by characters.
CHARS_PER_WORD = 2
# A rest that is shorter asks for nothing.
MIN_REQUEST_WORDS = 1

_QUOTED = re.compile(
    r"```.*?(?:```|\Z)|`[^`\n]*`|\"[^\"\n]{0,400}\"|“[^”\n]{0,400}”|„[^“”\n]{0,400}[“”]|«[^»\n]{0,400}»|「[^」\n]{0,400}」"
    r"|^[ \t]*>[^\n]*$",
    re.DOTALL | re.MULTILINE,
)
_SENTENCE_END = re.compile(r"[.!?;]+(?=\s|$)|[。！？；]+|\n+")
_CLAUSE_END = re.compile(r"[,，、:：]|\s[-–—]\s")
_QUESTION = re.compile(r"[?？؟]\s*$")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a message says.

    Attributes:
        outcome: Of the work before it.
        words: That say so.
        is_firm: It says more than praise, which may be meant for a plan.
        undoes: It has the work taken back.
    """

    outcome: Outcome
    words: str
    is_firm: bool = True
    undoes: bool = False


def verdict_of(message: str) -> Verdict | None:
    """Return what a message says of the work before it; `None` where it says nothing, or both."""
    plain = _plain(message)
    found: dict[Outcome, Verdict] = {}
    for start, end in _spans(_SENTENCE_END, plain, 0, len(plain)):
        if end - start > READ_CHARS or (start >= READ_CHARS and end <= len(plain) - READ_CHARS):
            continue
        verdict = _of_sentence(plain[start:end])
        if verdict is not None:
            verdict = replace(verdict, words=message[start:end].strip())
            known = found.get(verdict.outcome, verdict)
            found[verdict.outcome] = max(verdict, known, key=lambda one: (one.undoes, one.is_firm, one is known))
    return next(iter(found.values())) if len(found) == 1 else None


def next_request(message: str) -> int | None:
    """Return where in a message that praises the work before it the next request begins, `None` if there is none."""
    plain = _plain(message)
    for start, end in _spans(_SENTENCE_END, plain, 0, len(plain)):
        said = _of_sentence(plain[start:end])
        if said is None or said.outcome != "success":
            return start if _is_request(plain[start:]) else None
        clauses = list(_spans(_CLAUSE_END, plain, start, end))
        for place, (at, clause_end) in enumerate(clauses):
            if _of_sentence(plain[at:clause_end]) is None:
                rest = [_of_sentence(plain[one:two]) for one, two in clauses[place:]]
                if not any(rest) and _is_request(plain[at:]):
                    return at
                break
    return None


def opens_new_task(message: str) -> bool:
    """Say whether a message announces something else than what was done so far."""
    return NEW_TASK.match(message) is not None


def _is_request(text: str) -> bool:
    return words_in(text) >= MIN_REQUEST_WORDS and GO_ON.search(text[:READ_CHARS]) is None


def _of_sentence(sentence: str) -> Verdict | None:
    if _QUESTION.search(sentence):
        return None
    said: Verdict | None = None
    for part in BUT.split(sentence):
        now = _of_part(part, sentence)
        if now is not None and now.outcome == "failure":
            said = now
        elif said is not None and said.outcome == "failure":
            # "It failed, but now it works": the last word is good, and what of it still holds is not said.
            said = None if now is not None else said
        else:
            # Praise with a reservation is none.
            said = now
    return said


def _of_part(part: str, sentence: str) -> Verdict | None:
    good: Verdict | None = None
    for language in LANGUAGES:
        if language.undo.search(part):
            return Verdict("failure", part, undoes=True)
        if language.no_fact.search(sentence):
            continue
        for start, end in _spans(_CLAUSE_END, part, 0, len(part)):
            outcome, is_firm = _of_clause(part[start:end], language)
            if outcome == "failure":
                return Verdict("failure", part)
            if outcome == "success" and not (good is not None and good.is_firm):
                good = Verdict("success", part, is_firm)
        # "Deploy it, thanks" is polite; "Thanks, ..." and "ok thanks" are meant.
        thanks = language.thanks.search(part) if good is None else None
        before = part[: thanks.start()] if thanks is not None else ""
        if thanks is not None and words_in(before) <= MAX_WORDS_BEFORE and not language.negation.search(before):
            good = Verdict("success", part)
    return good


def _of_clause(clause: str, language: Language) -> tuple[Outcome | None, bool]:
    """Return what a clause says in one language, and whether that is more than praise."""
    works = language.works.search(clause)
    fails = language.fails.search(clause)
    if works is not None:
        after = clause[works.end() :] if language.negates_after else ""
        if language.negation.search(clause[: works.start()]) or language.negation.search(after):
            return "failure", True
    if fails is not None and not language.negation.search(clause[: fails.start()]):
        return "failure", True
    if works is not None:
        return "success", True
    praise = language.praise.search(clause)
    if praise is not None and words_in(clause[: praise.start()]) <= MAX_WORDS_BEFORE:
        after = clause[praise.end() :] if language.negates_after else ""
        if not language.negation.search(clause[: praise.start()]) and not language.negation.search(after):
            return "success", False
    return None, False


def words_in(text: str) -> int:
    """Return how many words a text has; where there are no spaces, by its length."""
    wide = sum(1 for sign in text if sign.isalpha() and unicodedata.east_asian_width(sign) in "WF")
    return len(re.findall(r"\w+", re.sub(r"[⺀-鿿가-힯]", " ", text))) + -(-wide // CHARS_PER_WORD)


def _spans(separator: re.Pattern[str], text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield where the pieces stand between separators, each with the separator after it; blank ones are left out."""
    at = start
    for found in separator.finditer(text, start, end):
        if text[at : found.start()].strip():
            yield at, found.end()
        at = found.end()
    if text[at:end].strip():
        yield at, end


def _plain(message: str) -> str:
    """Return a message in lower case, what it quotes blotted out, every character where it was."""
    unquoted = _QUOTED.sub(lambda quoted: " " * len(quoted[0]), message.replace("’", "'").replace("‘", "'"))
    return "".join(low if len(low := sign.lower()) == 1 else sign for sign in unquoted)
