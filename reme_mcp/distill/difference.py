"""What one text says that another does not: words, or what turns the same words around.

In:  two texts in any language; how near single words are by meaning, where a model knows it.
Out: the differences that are decisive, as words a person can read. Pure functions; no table, no model.
Does not know: when two texts are near enough to be compared; `dedup.py` does.

The principle: a word counts by its role. Marks (numbers, flags, names, paths, code) name one thing and must be the
same. Telling words need a counterpart: the same stem, or a word near enough by meaning that is not of the same series
("Thursday", "Friday" and "upstream", "downstream" are near, and share their end). Words that carry grammar may come and
go, except the few that operate on others: they negate, order, limit, point somewhere or put into the past. Those are a
closed class in every language, unlike names and things, so that they are listed here, once.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache

from reme_mcp.text.words import grammar_words, language_of, stem

# Two near words that share their last letters, but not their first, are of one series.
SERIES_CHARS = 3
REMEMBERED_TEXTS = 256
REMEMBERED_WORDS = 8_192

AreNear = Callable[[str, str], bool]

_NEGATION = """
    not no never none cannot without avoid unless nor neither except instead rather nobody nothing stop refuse
    forbidden nicht nein kein keine keinen keinem keiner keines nie niemals ohne statt außer weder pas jamais sans
    aucun aucune ni nunca sin jamás ningún ninguna não sem jamais nenhum nenhuma non mai senza nessun nessuna niet
    geen nooit zonder inte aldrig utan ikke aldri uden uten не без нет никогда нельзя кроме nie bez nigdy
"""
_BEFORE = "before prior bevor vor zuvor vorher avant antes prima voor före før перед до przed"
_AFTER = "after afterwards nach nachdem après después tras dopo após depois na efter etter после po"
_THEN = (
    "then next finally dann danach anschließend puis ensuite luego entonces poi então daarna sedan затем потом potem"
)
_FIRST = "first firstly zuerst erst zunächst abord primero prima primeiro eerst först сначала сперва najpierw"
_LAST = "last lastly finally zuletzt schließlich enfin finalmente infine último наконец"
_LIMITS = """
    only some several few most half partly sometimes often rarely seldom usually nur einige wenige meiste manchmal
    selten oft seulement quelques parfois souvent rarement sólo solo algunos algunas apenas alguns algumas solamente
    raramente только некоторые иногда редко
"""
_MUST = "must required mandatory muss müssen doit devono debe deve должен"
_MAY = "may might optional darf dürfen kann peut puede pode può может можно"
_PAST = "was were formerly previously originally war waren était étaient era eran foram erano был была были"
_HELPING = "is are be been being am has have had get gets got getting"
# Endings of the past tense of verbs whose stem stays.
_FINITE_PAST = {
    "english": re.compile(r"ed$"),
    "french": re.compile(r"(ait|aient)$"),
    "spanish": re.compile(r"(aba|aban|ian)$"),
    "italian": re.compile(r"(ava|avano|eva|evano)$"),
    "portuguese": re.compile(r"(ava|avam)$"),
    "russian": re.compile(r"(л|ла|ло|ли)$"),
}
_AND = "and und et y e en och og и or oder ou o oppure или"
# Those of one row point to opposite places.
_OPPOSITE = (
    ("to into toward towards onto", "from"),
    ("on", "off"),
    ("up", "down"),
    ("in inside", "out outside"),
    ("over above", "under below"),
    (_BEFORE, _AFTER),
)
# What carries grammar in English beside the stop words of search.
_MORE_GRAMMAR = """
    since get gets got getting though although whether within upon yet still already else thus hence via per every each
    many much one ones either another well way sure always let lets make makes made making ensure please have whenever
    whatever whichever everything something anything itself according due both else toward towards among along onto
"""

# Where words are not set apart: what stands for the words above.
_EAST_NEGATION = re.compile(r"[不没沒别別勿無无未非]|ない|なく|ません|ずに|禁止|않|말고|말아|없|못")
_EAST_BEFORE = re.compile(r"之前|以前|の?前に|기\s?전에?|전에")
_EAST_AFTER = re.compile(r"之后|之後|以后|以後|の?[後后]に?|てから|[한은]\s?후에?|후에")
_EAST_THEN = re.compile(r"然后|然後|接着|最后|再|それから|次に|다음에")
_EAST_FIRST = re.compile(r"首先|先に|先|まず|먼저")

_EAST = r"\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_TOKEN = re.compile(
    # Most words are so plain that nothing else need be tried on them, letter by letter.
    rf"(?P<plain>[A-Za-z][a-z]*(?=[,;:.!?()]*(?:\s|\Z)))"
    rf"|(?P<flag>(?<![\w-])--?[A-Za-z][\w-]*)"
    rf"|(?P<code>(?:[~.]?/)?\w+(?:[_./:@=#\\]+\w+)+|(?:~|\.)?/\w[\w.-]*|\w*[a-z][A-Z]\w*|\w*(?:\d[^\W\d_{_EAST}]|[^\W\d_{_EAST}]\d)\w*)"
    rf"|(?P<number>\d+(?:[.,]\d+)*)"
    rf"|(?P<east>[{_EAST}]+)"
    rf"|(?P<word>[^\W\d_]+(?:['’][^\W\d_]+)*)"
    rf"|(?P<stop>[,;:.!?()，。；：！？、（）…\n]+)"
)


def _of(words: str) -> frozenset[str]:
    return frozenset(_folded(word) for word in words.split())


def _folded(text: str) -> str:
    if text.isascii():
        return text.casefold()
    bare = "".join(char for char in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(char))
    return unicodedata.normalize("NFC", bare)


NEGATION, BEFORE, AFTER, THEN, FIRST, LAST = map(_of, (_NEGATION, _BEFORE, _AFTER, _THEN, _FIRST, _LAST))
LIMITS, MUST, MAY, PAST, AND = map(_of, (_LIMITS, _MUST, _MAY, _PAST, _AND))
OPPOSITE = tuple((_of(one), _of(other)) for one, other in _OPPOSITE)
OPERATORS = frozenset().union(NEGATION, BEFORE, AFTER, THEN, FIRST, LAST, LIMITS, MUST, MAY, PAST, AND)
POINTERS = frozenset().union(*(one | other for one, other in OPPOSITE))
MORE_GRAMMAR, HELPING = _of(_MORE_GRAMMAR), _of(_HELPING)
ACTING = OPERATORS | POINTERS | HELPING


@dataclass(frozen=True, slots=True)
class _Token:
    """One word or mark of a text.

    Attributes:
        text: As it stands there, but for marks folded.
        key: What a counterpart has to share: the stem of a word, a mark itself.
        role: `mark`, `telling`, `grammar`.
        clause: The number of its clause.
        when: The place of its clause in time.
    """

    text: str
    key: str
    role: str
    clause: int
    when: float


@dataclass(frozen=True, slots=True)
class _Reading:
    """What is compared of a text.

    Attributes:
        tokens: In order.
        is_ordered: Whether it says of anything what comes first.
        negated: What is negated; an empty text where that can't be told.
        limits: Words that limit it.
        pointed: What something points to or from, by side.
        signs: Of `must`, `may`, `past`.
        past: Whether a telling word stands in a past tense that needs no helping verb, by what a counterpart shares.
        numbers: Which stand in it.
        telling: Its telling words and marks, by what a counterpart has to share.
    """

    tokens: tuple[_Token, ...]
    is_ordered: bool
    negated: frozenset[str]
    limits: frozenset[str]
    pointed: Mapping[str, frozenset[int]]
    signs: frozenset[str]
    past: Mapping[str, bool]
    numbers: frozenset[str]
    telling: Mapping[str, str]


def never_near(one: str, other: str) -> bool:
    """Return that two words are not near in meaning: no model says that any are."""
    return False


def difference(older: str, newer: str, are_near: AreNear = never_near) -> str:
    """Return what the newer text adds, replaces or turns around, in words; empty where it says nothing but the older.

    What it leaves out does not matter, but for numbers.

    Args:
        older: A text.
        newer: Another one.
        are_near: Whether two words are near enough by their meaning; series are told apart here.
    """
    one, other = _read(older), _read(newer)
    if bool(one.negated) != bool(other.negated):
        return "not"
    told = one.telling
    if past := sorted(key for key, finite in one.past.items() if other.past.get(key, finite) != finite):
        return f"when {past[0]}"
    if turned := _turned(one.negated, other.negated, set(told), set(other.telling)):
        return f"not {turned}"
    if one.limits != other.limits:
        return ", ".join(sorted(one.limits ^ other.limits))
    if one.signs != other.signs and ("past" in one.signs ^ other.signs or {"must", "may"} == one.signs ^ other.signs):
        return ", ".join(sorted(one.signs ^ other.signs))
    for key in one.pointed.keys() & other.pointed.keys():
        if any(-side in other.pointed[key] and side not in other.pointed[key] for side in one.pointed[key]):
            return f"the way to {told.get(key, key)}"
    if reordered := _reordered(one, other):
        return f"order of {reordered}"
    if one.numbers != other.numbers:
        return ", ".join(sorted(one.numbers ^ other.numbers))
    new = unmatched(older, newer, are_near)
    return f"{', '.join(sorted(new))}" if new else ""


def leftover(older: str, newer: str) -> tuple[set[str], set[str]]:
    """Return the telling words of each text whose stem the other lacks: what may have a synonym there."""
    return _only_in(older, newer), _only_in(newer, older)


def _only_in(text: str, other: str) -> set[str]:
    """Return the telling words of a text whose stem another one lacks."""
    there = _telling(other)
    return {word for key, word in _telling(text).items() if key not in there}


def unmatched(older: str, newer: str, are_near: AreNear = never_near) -> set[str]:
    """Return the telling words and marks of the newer text that have no counterpart in the older."""
    new = _only_in(newer, older)
    if are_near is never_near:
        return new
    left = sorted(_only_in(older, newer))
    matched = set()
    for word in sorted(new):
        near = next((other for other in left if is_synonym(word, other, are_near)), None)
        if near is not None:
            left.remove(near)
            matched.add(word)
    return new - matched


def agreement(older: str, newer: str, are_near: AreNear = never_near) -> float:
    """Return the share of the telling words of both that have a counterpart in the other text, 0 to 1."""
    told, telling = _telling(older), _telling(newer)
    common = len(telling) - len(unmatched(older, newer, are_near))
    return common / max(1, len(told) + len(telling) - common)


def is_synonym(word: str, other: str, are_near: AreNear) -> bool:
    """Return whether two words mean the same."""
    return are_near(word, other) and may_be_synonyms(word, other)


def may_be_synonyms(word: str, other: str) -> bool:
    """Return whether two words may mean the same: plain words, and not of one series."""
    if not (word.isalpha() and other.isalpha() and word[:1].islower() and other[:1].islower()):
        return False
    return word[-SERIES_CHARS:] != other[-SERIES_CHARS:] or word[:SERIES_CHARS] == other[:SERIES_CHARS]


def _turned(negated: frozenset[str], other: frozenset[str], told: set[str], telling: set[str]) -> str:
    """Return a word of both texts that only one of them negates."""
    both = (told & telling) - {""}
    lost = sorted(key for key in negated ^ other if key in both)
    # Where the other negates something else of both, it is turned around; else it may stand beside it only.
    return lost[0] if lost and negated & both and other & both and not negated & other & both else ""


def _reordered(one: _Reading, other: _Reading) -> str:
    """Return two words of both texts that come in another order in time, where either says one."""
    first, second = _places(one), _places(other)
    keys = [key for key in first if key in second]
    if one.is_ordered or other.is_ordered:
        for place, key in enumerate(keys):
            for next_key in keys[place + 1 :]:
                was, now = first[key] - first[next_key], second[key] - second[next_key]
                if was * now < 0:
                    return f"{key}, {next_key}"
        return ""
    words, other_words = [t.key for t in one.tokens], [t.key for t in other.tokens]
    if words != other_words and sorted(words) == sorted(other_words):
        clauses, other_clauses = _clauses(one), _clauses(other)
        if sorted(clauses) != sorted(other_clauses):
            return "words"
    return ""


def _clauses(reading: _Reading) -> list[tuple[str, ...]]:
    found: dict[int, list[str]] = {}
    for token in reading.tokens:
        if token.key not in AND:
            found.setdefault(token.clause, []).append(token.key)
    return [tuple(words) for words in found.values()]


def _places(reading: _Reading) -> dict[str, float]:
    """Return when each telling word comes that comes once."""
    places: dict[str, float] = {}
    twice: set[str] = set()
    for token in reading.tokens:
        if token.role == "grammar":
            continue
        if token.key in places and places[token.key] != token.when:
            twice.add(token.key)
        places.setdefault(token.key, token.when)
    return {key: when for key, when in places.items() if key not in twice}


@cache
def _grammar(language: str) -> frozenset[str]:
    return grammar_words(language) | MORE_GRAMMAR | OPERATORS | POINTERS


@dataclass(frozen=True, slots=True)
class _Word:
    """What is known of a word of a language by itself.

    Attributes:
        folded: Without accents and capitals.
        key: What a counterpart has to share.
        is_telling: Whether it does not carry grammar.
        is_past: Whether it ends as the past tense of a verb; `None` where that can't be told.
    """

    folded: str
    key: str
    is_telling: bool
    is_past: bool | None


@lru_cache(maxsize=REMEMBERED_WORDS)
def _word(word: str, language: str) -> _Word:
    folded = _folded(word)
    if folded in _grammar(language) or _is_contracted_not(folded):
        return _Word(folded, folded, is_telling=False, is_past=None)
    ending = _FINITE_PAST.get(language)
    is_past = None if ending is None else ending.search(folded) is not None
    return _Word(folded, stem(word.casefold(), language), is_telling=True, is_past=is_past)


def _is_contracted_not(folded: str) -> bool:
    return folded.endswith(("n't", "n’t")) or folded == "cannot"


def _mark(kind: str, word: str) -> str:
    """Return what a counterpart of a mark, or of an East Asian character, has to share."""
    return _folded(word) if kind in ("code", "number") else word


def _shown(word: str, *, starts: bool) -> str:
    """Return a telling word as it is told: a capital says little where a sentence begins."""
    return word.casefold() if starts else word


@lru_cache(maxsize=REMEMBERED_TEXTS)
def _telling(text: str) -> Mapping[str, str]:
    """Return the telling words and marks of a text, by what a counterpart has to share.

    Most texts are compared by these alone: to read them as a whole takes three times as long.
    """
    language = language_of(text)
    telling: dict[str, str] = {}
    for kind, word, starts in _tokens(text):
        if kind == "word":
            known = _word(word, language)
            if known.is_telling:
                telling[known.key] = _shown(word, starts=starts)
        elif kind != "stop":
            telling[_mark(kind, word)] = word
    return telling


@lru_cache(maxsize=REMEMBERED_TEXTS)
def _read(text: str) -> _Reading:
    language = language_of(text)
    tokens: list[_Token] = []
    negated: set[str] = set()
    pointed: dict[str, set[int]] = {}
    signs: set[str] = set()
    limits: set[str] = set()
    past: dict[str, bool] = {}
    numbers: set[str] = set()
    is_helped = False
    is_ordered = False
    clause, when = 0, 0.0
    negates, points, last = False, 0, ""
    shift = 0.0

    def told(word: str, key: str, role: str) -> None:
        nonlocal negates, points, last
        tokens.append(_Token(word, key, role, clause, when + shift))
        if role != "grammar":
            if negates:
                negated.add(key)
                negates = False
            if points:
                pointed.setdefault(key, set()).add(points)
                points = 0
            last = key

    for kind, word, starts in _tokens(text):
        if kind == "stop":
            if negates:
                # What it negates stands before it: "lösche es nicht".
                negated.add(last)
            negates, points = False, 0
            clause, when, shift = clause + 1, when + 1, 0.0
            is_helped &= not _ends_sentence(word)
            continue
        if kind == "number":
            numbers.add(word)
        if kind != "word":
            told(word, _mark(kind, word), "telling" if kind == "character" else "mark")
            continue
        known = _word(word, language)
        folded = known.folded
        if _is_contracted_not(folded):
            negates = True
            tokens.append(_Token(word, folded, "grammar", clause, when + shift))
            continue
        # Few words are any of these.
        if folded in ACTING:
            if folded in NEGATION:
                negates = True
            elif folded in BEFORE or folded in AFTER:
                is_ordered = True
                # What follows comes later, or earlier, than what it belongs to.
                clause, shift = clause + 1, 0.5 if folded in BEFORE else -0.5
                if not any(token.when == when and token.clause < clause for token in tokens):
                    # It begins the sentence, and belongs to what comes next.
                    shift += 1.0
            elif folded in THEN:
                is_ordered = True
                clause, when, shift = clause + 1, when + 1, 0.0
            elif folded in FIRST:
                is_ordered = True
            elif folded in AND:
                clause, when = clause + 1, when + 1
            if folded in LIMITS:
                limits.add(folded)
            for sign, words in (("must", MUST), ("may", MAY), ("past", PAST)):
                # May is a month.
                if folded in words and (starts or word.islower()):
                    signs.add(sign)
            for one, other in OPPOSITE:
                points = 1 if folded in one else -1 if folded in other else points
            is_helped |= folded in HELPING
        if known.is_past is not None:
            past[known.key] = known.is_past and not is_helped
        shown = _shown(word, starts=starts or not known.is_telling)
        told(shown, known.key, "telling" if known.is_telling else "grammar")
    if negates:
        negated.add(last)
    return _Reading(
        tuple(tokens),
        is_ordered,
        frozenset(negated),
        frozenset(limits),
        {key: frozenset(sides) for key, sides in pointed.items()},
        frozenset(signs),
        past,
        frozenset(numbers),
        {token.key: token.text for token in tokens if token.role != "grammar"},
    )


def _tokens(text: str) -> Iterator[tuple[str, str, bool]]:
    """Yield the kind and the text of each token in order, and whether a sentence starts with it.

    East Asian runs are taken by character, without what carries grammar.
    """
    starts = True
    for found in _TOKEN.finditer(unicodedata.normalize("NFKC", text)):
        kind, word = found.lastgroup or "word", found.group()
        if kind == "east":
            for part in _east(word):
                yield *part, starts
                starts = False
            continue
        yield "word" if kind == "plain" else kind, word, starts
        starts = kind == "stop" and _ends_sentence(word)


def _ends_sentence(stop: str) -> bool:
    return stop not in ",()"


def _east(run: str) -> Iterator[tuple[str, str]]:
    place = 0
    while place < len(run):
        for pattern, word in (
            # What these belong to stands before them: what follows "X 之前" comes earlier than X.
            (_EAST_BEFORE, "after"), (_EAST_AFTER, "then"), (_EAST_THEN, "then"), (_EAST_FIRST, "first"),
            (_EAST_NEGATION, "not"),
        ):  # fmt: skip
            if found := pattern.match(run, place):
                yield "word", word
                place = found.end()
                break
        else:
            # Hiragana carries grammar.
            if not "\u3040" <= run[place] <= "\u309f":
                yield "character", run[place]
            place += 1
