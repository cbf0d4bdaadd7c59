"""The words of a text, as full-text search and the relevance floor see them. The only file that imports a stemmer.

In:  text in any language.
Out: stems without function words; how alike texts are in them; text made fit for the index.
Does not know: what is searched.

English is stemmed (Porter2), as the index does it. Chinese, Japanese and Korean have no spaces, or particles on their
words: they count by pairs of characters.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

# What carries grammar or politeness, not the subject. The index's own list is not used: it takes words of other
# languages for English ones, and "door" or "end" can't be found any more.
STOP_WORDS = tuple(
    """
    a about above after again against all also am an and any are aren as at be because been before being below
    between both but by can cannot could couldn d did didn do does doesn doing don down during each few for from
    further had hadn has hasn have haven having he hello her here hers herself hey hi him himself his how i if in
    into is isn it its itself just kindly let like ll m may me might more most must my myself need no nor not now of
    off oh ok okay on once only or other our ours ourselves out over own please re s same shall she should shouldn
    so some such sure t than thank thanks that the their theirs them themselves then there these they this those
    through to too under until up ve very want was wasn we were weren what when where which while who whom why will
    with won would wouldn you your yours yourself yourselves
    """.split()  # noqa: SIM905  as a list it would fill the page
)
# Numbers, measures of time and quantity, and verbs that go with everything: they are in every second task, whatever it
# is about. Unlike those above they are searched, but say nothing for a lesson.
COMMON_WORDS = tuple(
    """
    able actually add added ago almost already also although always another anything ask asked bad because begin best
    better big bit call called came case change changed check checked come comes day days different early either else
    end ends even ever every everything fail failed fails find fix five four found gave get gets getting give given
    gives go goes going gone good got great half happen happens help helps here high instead keep keeps kept kind knew
    know last late later least less little long look looks lot low made make makes making many maybe month months much
    near never new next nine nothing now often old one open opened part people person put quite rather ready really
    right run running runs said saw say says see seem set seven several short show shows since six small something
    soon start started still stop sure take taken takes tell ten thing things think three time times today together
    tomorrow took tried try turn turns twice two use used uses using usually want wants way ways week weeks well went
    whether whole within without work worked working works write wrong year years yes yesterday yet
    """.split()  # noqa: SIM905  as a list it would fill the page
)
# A shorter number counts something; 404 names it.
MIN_NUMBER_CHARS = 3
# Fewer words that carry grammar in a language do not make a text one of it.
MIN_GRAMMAR_WORDS = 2
# Words whose stems are, at about 0.2 kB each.
REMEMBERED_WORDS = 8_192
# These write as one word what others write as two.
COMPOUNDING = frozenset({"danish", "dutch", "finnish", "german", "hungarian", "norwegian", "swedish"})
# More often than this no word stands in a text, as far as anybody compares it.
MAX_TIMES = 2**15 - 1

_STOP = frozenset(STOP_WORDS)
_COMMON = _STOP.union(COMMON_WORDS)
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_QUOTED = re.compile(r"""(?<!\w)(['"`])(?=\S).{1,200}?(?<=\S)\1(?!\w)|[“‘«「].{1,200}?[”’»」]""")
_EAST_ASIAN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+")
_HANGUL = re.compile(r"[\uac00-\ud7af]+")
_WORD = re.compile(r"[^\W_]+")
# Thai, Lao, Burmese and Khmer: they have no spaces, and only a dictionary finds their words.
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]")


def spell_out(text: str) -> str:
    """Return `text` as the index takes it: startEngine as start Engine, Korean words as pairs of syllables.

    The index splits Chinese and Japanese by itself, but leaves Korean particles on their words.
    """
    spelled = _CAMEL.sub(" ", text)
    return _HANGUL.sub(lambda word: " ".join(_pairs(word.group())), spelled)


def unquoted(text: str) -> str:
    """Return `text` without quoted literals: names, messages and values say little about what kind of task it is."""
    rest = _QUOTED.sub(" ", text)
    return rest if _WORD.search(rest) else text


def is_spaced(text: str) -> bool:
    """Return whether the words of `text` are found without a dictionary."""
    return not _UNSPACED.search(text)


def stems(text: str) -> frozenset[str]:
    """Return the distinct words of `text`: stems of English words, character pairs of East Asian runs."""
    return frozenset(word_counts(text))


@dataclass(frozen=True, slots=True)
class QueryWords:
    """What a text is about, in its own language.

    Attributes:
        language: As `stop_words` names it; `other` where its letters are not Latin and it is not known.
        words: Its telling words, those that are not common: stemmed as its language has it, and as English has it, for
            names and borrowed words.
    """

    language: str
    words: frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class TextWords:
    """What a text has to be compared by. Its words stand here as Python's hashes of them, which hold for this process.

    Attributes:
        language: As `QueryWords` has it.
        words: Those that `word_counts` returns, and both stems of its telling words; each once.
        marks: Of each, how often `word_counts` has it, twice, and one more for a stem of a telling word.
        compounds: The stems of its telling words, a line each, where its language writes compounds: somebody may look
            for a part of one.
    """

    language: str
    words: array[int]
    marks: array[int]
    compounds: str = ""


def query_words(text: str) -> QueryWords:
    """Return language and telling words of `text`; the language is the one that most of its common words are of."""
    language, words, pairs = _telling(_split(text))
    own, english = _stemmer(language), _stemmer("english")
    forms = [(own(word), english(word)) for word in words] + [(pair, pair) for pair in pairs]
    return QueryWords(_known(language, text), frozenset(forms))


def text_words(text: str) -> TextWords:
    """Return what `text` has to be compared by."""
    split = _split(text)
    language, words, pairs = _telling(split)
    telling = {*map(_stemmer("english"), words), *pairs}
    if language != "english":
        telling.update(map(_stemmer(language), words))
    counts = _counts(split)
    marks = {word: 2 * min(times, MAX_TIMES) + (word in telling) for word, times in counts.items()}
    marks |= dict.fromkeys(telling - counts.keys(), 1)
    language = _known(language, text)
    compounds = "\n".join(telling) if language in COMPOUNDING else ""
    return TextWords(language, array("q", map(hash, marks)), array("H", marks.values()), compounds)


@dataclass(frozen=True, slots=True)
class _Split:
    """A text in lower case, its words, and its East Asian runs, in the order in which they stand there."""

    lower: str
    words: Sequence[str]
    runs: Sequence[str]


def _split(text: str) -> _Split:
    lower = _CAMEL.sub(" ", text).lower()
    runs = [] if lower.isascii() else _EAST_ASIAN.findall(lower)
    return _Split(lower, _WORD.findall(_EAST_ASIAN.sub(" ", lower) if runs else lower), runs)


def _telling(split: _Split) -> tuple[str, set[str], list[str]]:
    """Return the language of a text, its words that are not common, and the pairs of its East Asian runs."""
    found = set(split.words)
    language = _language(found)
    telling = found - (_COMMON if language == "english" else _common_words(language))
    telling = {word for word in telling if len(word) >= MIN_NUMBER_CHARS or not word.isdecimal()}
    words = telling if split.lower.isascii() else set(map(_folded, telling))
    return language, words, [pair for run in split.runs for pair in _pairs(run)]


def _known(language: str, text: str) -> str:
    return "other" if language == "english" and not mostly_latin(text) else language


def _language(words: set[str]) -> str:
    """Return the language of a text with these words; English where nothing else is clear."""
    languages_of = _languages_of()
    counts = Counter(chain.from_iterable([languages_of[word] for word in words if word in languages_of]))
    language = max(counts, key=lambda name: (counts[name], name == "english"), default="english")
    return language if counts[language] >= MIN_GRAMMAR_WORDS else "english"


def language_of(text: str) -> str:
    """Return the language that most words of `text` carry grammar in; English where hardly any does in another."""
    return _language(set(_WORD.findall(text.lower())))


@functools.cache
def grammar_words(language: str) -> frozenset[str]:
    """Return the words that carry grammar in a language, without accents."""
    return frozenset(map(_folded, STOP_WORDS if language == "english" else _grammar_words()[language]))


def stem(word: str, language: str) -> str:
    """Return the stem of one word in lower case, in its language, without accents."""
    return _folded(_stemmer(language)(word))


def likeness(texts: Sequence[TextWords]) -> npt.NDArray[np.float32]:
    """Return how alike n texts are in their words, (n, n) float32, 0 to 1: the cosines of their tf-idf vectors.

    How rare a word is, is counted among these texts.
    """
    import numpy as np

    rows, words, marks = columns_of_words(texts)
    stands = marks > 1
    found, columns = np.unique(words[stands], return_inverse=True)
    times = np.zeros((len(texts), len(found)), dtype=np.float32)
    times[rows[stands], columns] = marks[stands] >> 1
    holders = (times > 0).sum(axis=0)
    weights = times * np.log(1 + (len(texts) - holders + 0.5) / (holders + 0.5)).astype(np.float32)
    weights /= np.maximum(np.linalg.norm(weights, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    # The threads that a product of matrices may have go on spinning for milliseconds after each call.
    alike: npt.NDArray[np.float32] = np.vecdot(weights[:, np.newaxis], weights)
    return alike


def columns_of_words(
    texts: Sequence[TextWords],
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.int64], npt.NDArray[np.uint16]]:
    """Return the words of n texts as three columns: in which text a word stands, the word, and its mark."""
    import numpy as np

    words, marks = array("q"), array("H")
    for text in texts:
        words += text.words
        marks += text.marks
    rows = np.repeat(np.arange(len(texts)), [len(text.words) for text in texts])
    return rows, np.asarray(words), np.asarray(marks)


def word_counts(text: str) -> Mapping[str, int]:
    """Return the words of `text` and how often they stand in it: stems, and character pairs of East Asian runs."""
    return _counts(_split(text))


def _counts(split: _Split) -> Mapping[str, int]:
    stem = _stemmer("english")
    if split.lower.isascii():
        return Counter([stem(word) for word in split.words if word not in _STOP])
    folded = _folded(split.lower)
    counts = Counter(stem(word) for word in _WORD.findall(_EAST_ASIAN.sub(" ", folded)) if word not in _STOP)
    counts.update(pair for run in _EAST_ASIAN.findall(folded) for pair in _pairs(run))
    return counts


def mostly_latin(text: str) -> bool:
    """Return whether most letters of `text` are Latin: a model for English maps all others to one unknown token."""
    if text.isascii():
        return True
    letters = [letter for letter in text if letter.isalpha()]
    return 2 * sum(letter < "\u0250" for letter in letters) >= len(letters)


def _pairs(run: str) -> list[str]:
    return [run[start : start + 2] for start in range(max(1, len(run) - 1))]


def _folded(text: str) -> str:
    """Return `text` without accents."""
    if text.isascii():
        return text
    letters = (letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))
    return unicodedata.normalize("NFC", "".join(letters))


@functools.cache
def _grammar_words() -> Mapping[str, frozenset[str]]:
    from stop_words import AVAILABLE_LANGUAGES, get_stop_words

    return {name: frozenset(get_stop_words(name)) for name in AVAILABLE_LANGUAGES}


@functools.cache
def _common_words(language: str) -> frozenset[str]:
    return _COMMON | _grammar_words()[language]


@functools.cache
def _languages_of() -> Mapping[str, tuple[str, ...]]:
    """Return of which languages each common word is one."""
    languages: dict[str, list[str]] = defaultdict(list)
    for language, words in _grammar_words().items():
        for word in words:
            languages[word].append(language)
    return {word: tuple(names) for word, names in languages.items()}


@functools.cache
def _stemmer(language: str) -> Callable[[str], str]:
    """Return what stems the words of a language; one that nobody has rules for keeps its words."""
    from py_rust_stemmers import SnowballStemmer

    try:
        stem: Callable[[str], str] = SnowballStemmer(language).stem_word
    except ValueError:
        return str
    return functools.lru_cache(maxsize=REMEMBERED_WORDS)(stem)
