"""Characters that a reader can't see, or takes for others.

In:  a text.
Out: whether it hides or disguises something; the text with what is hidden made visible.
Does not know: what the text is for.

Sources: Unicode Standard Annex 9 (bidirectional text), Technical Standards 39 (confusable characters) and 51 (emoji).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Set


def visible(text: str) -> str:
    """Return a text with what hides in it spelled out, so that a person sees what a model would read."""
    places = set(hidden_places(text))
    if not places:
        return text
    return "".join(f"\\u{{{ord(char):x}}}" if place in places else char for place, char in enumerate(text))


# --- the forms of a text ---

# Small letters of other scripts, and the Latin ones that they look like.
LOOK_ALIKES = str.maketrans(
    "авекмнорстухіјѕԁһԛԝӏгпьαεηικνορτυχωօսհցո",
    "abekmhopctyxijsdhqwlrnbaenikvoptuxwouhgn",
)
DIGITS = str.maketrans("0134578@$", "oieastbas")
# Those of them that nobody tells from a Latin letter; in a name, they stand for nothing else.
_TWINS = set("аеорсухіјѕԁһԛԝӏοАВЕКМНОРСТУХІЈЅΑΒΕΖΗΙΚΜΝΟΡΤΥΧ")
_BIDI = {*range(0x202A, 0x202F), *range(0x2066, 0x206A)}
# Marks of direction and joiners have a place in some scripts, selectors and tags in emoji.
_MARKS = {0x200E, 0x200F, 0x061C}
_JOINERS = {0x200C, 0x200D}
_SELECTORS = {*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)}
_TAGS = set(range(0xE0000, 0xE0080))
_INVISIBLE = {
    *(0x00AD, 0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x180E, 0x200B, 0x3164, 0xFEFF, 0xFFA0),
    *range(0x2060, 0x2066),
    *range(0x206A, 0x2070),
    *range(0xFFF9, 0xFFFC),
    *range(0x1D173, 0x1D17B),
}
_HIDDEN = _BIDI | _MARKS | _JOINERS | _SELECTORS | _TAGS | _INVISIBLE


# England, Scotland and Wales: a black flag, five tags and their end.
_FLAG = re.compile("\U0001f3f4[\U000e0061-\U000e007a]{5}\U000e007f")


def is_hidden(char: str) -> bool:
    """Return whether a reader can't see the character."""
    return ord(char) in _HIDDEN


def hidden_places(text: str) -> Iterator[int]:
    """Yield where a character hides that has no place there: no script needs it, and no emoji."""
    hidden = [place for place, char in enumerate(text) if is_hidden(char)]
    if not hidden:
        return
    is_written_to_the_left = any(unicodedata.bidirectional(char) in ("R", "AL") for char in text)
    in_flags = {place for flag in _FLAG.finditer(text) for place in range(*flag.span())}
    for place in hidden:
        if not _belongs(text, place, is_written_to_the_left=is_written_to_the_left, in_flags=in_flags):
            yield place


def _belongs(text: str, place: int, *, is_written_to_the_left: bool, in_flags: Set[int]) -> bool:
    code, before, after = ord(text[place]), text[place - 1 : place], text[place + 1 : place + 2]
    if code in _MARKS:
        return is_written_to_the_left and not any(map(is_hidden, before + after))
    if code in _JOINERS:
        return bool(before and after) and _joins(before) and _joins(after)
    if code in _SELECTORS:
        return bool(before) and unicodedata.category(before) in ("So", "Sm", "Sk", "Po", "Nd", "Lo", "Sc")
    return code in _TAGS and place in in_flags


def _joins(char: str) -> bool:
    """Say whether a character may stand beside a joiner: an emoji, or a letter of a script that joins its letters."""
    if unicodedata.category(char) in ("So", "Sk") or ord(char) in _SELECTORS:
        return True
    script = unicodedata.name(char, "").split(" ")[0]
    return script in ("ARABIC", "SYRIAC", "DEVANAGARI", "BENGALI", "GURMUKHI", "GUJARATI", "ORIYA", "TAMIL", "TELUGU",
                      "KANNADA", "MALAYALAM", "SINHALA", "KHMER", "MYANMAR", "MONGOLIAN", "TIBETAN")  # fmt: skip


def is_disguised(name: str) -> bool:
    """Say whether a name has letters of two scripts that look like one, or of another width."""
    if any("Ａ" <= char <= "ｚ" for char in name):
        return True
    runs = [run for run in re.split(r"[\W\d_]+", name) if run]
    latin = [run for run in runs if any("LATIN" in unicodedata.name(char, "") for char in run)]
    of_latin = set(latin)
    for run in runs:
        twins = [char for char in run if char in _TWINS]
        if twins and run in of_latin:
            return True
        # A whole part of such letters, in a name that is Latin otherwise.
        if len(run) > 1 and latin and len(twins) == len(run):
            return True
    return False
