"""The rules by which a lesson is held back: what of it is meant for its reader instead of the task.

In:  an experience's texts.
Out: what each rule finds.
Does not know: what follows from it; `quarantine.py` does.

An honest lesson gives orders, too ("Ignore the generated files", "Use curl to check the endpoint"). So no rule asks
whether a text is an order, but whom it is for and what it would do: turn the reader against what it was told, keep
things from the user, carry data away, fetch or run what somebody else wrote, steer this memory, or be read otherwise
than it looks. Bad advice in plain words passes; that is for its outcomes to show.

Sources: attacks on the memory of agents as in MINJA (arXiv 2503.03704).
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from reme_mcp.safety.injection_signs import WORDS, signs_of
from reme_mcp.safety.redaction import is_marked
from reme_mcp.safety.secret_rules import compiled
from reme_mcp.safety.unicode import DIGITS, LOOK_ALIKES, hidden_places, is_disguised, is_hidden
from reme_mcp.text.words import mostly_latin

# How far behind what is sent an address may stand.
REACH_CHARS = 200
# How far before an order a "never" is looked for.
BEFORE_CHARS = 60


@dataclass(frozen=True, slots=True)
class Texts:
    """The texts of an experience, in the forms in which the rules read them.

    Attributes:
        raw: As they came, joined by lines.
        plain: The same in lower case, without accents and hidden characters, look-alike letters made Latin, and
            letters that were spaced out put together.
        lower: The same in lower case, hidden characters left out; other scripts are as they were.
        names: What is the name of a tool, or looks like one.
    """

    raw: str
    plain: str
    lower: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """One reason to hold a lesson back.

    Attributes:
        name: By which a person knows it.
        says: What the lesson does, after "it".
        applies: Whether it does.
    """

    name: str
    says: str
    applies: Callable[[Texts], bool]


_SPACED = r"(?<!\w)[^\W\d_](?:[ .*_-][^\W\d_]){2,}(?!\w)"
_NAME = r"\b\w+(?:[_.:/-]\w+|(?<=[a-z])[A-Z]\w*)+"


def texts_of(texts: Iterable[str], tools: Sequence[str]) -> Texts:
    """Return the texts in the readings that the rules look at."""
    raw = "\n".join([*texts, *tools])
    seen = raw if raw.isascii() else "".join(char for char in raw if not is_hidden(char))
    lower = unicodedata.normalize("NFKC", seen).lower()
    plain = lower
    if not lower.isascii():
        bare = unicodedata.normalize("NFKD", lower)
        plain = "".join(char for char in bare if not unicodedata.combining(char)).translate(LOOK_ALIKES)
    plain = compiled(_SPACED).sub(lambda found: re.sub(r"[ .*_-]", "", found[0]), plain)
    return Texts(raw, plain, lower, (*tools, *compiled(_NAME).findall(raw)))


# --- what the rules look for ---


def _any(*patterns: str) -> str:
    return "(?:" + "|".join(patterns) + ")"


_BEHIND_BACK = (
    r"\bwithout (?:telling|informing|notifying|alerting|mentioning (?:it|this|that) to|the knowledge of) "
    rf"(?:{WORDS['user']})\b"
)

_SECRET_FILE = r"(?:\.env|id_rsa|id_ed25519|\.ssh/\w+|\.aws/\w+|\.netrc|\.kube/\w+|/etc/(?:passwd|shadow))"
_SENSITIVE = _any(
    r"credentials?|passwords?|secrets?|(?:api|access|private|ssh|secret|encryption)[ _-]?keys?|tokens?|cookies?",
    r"\.env\b|id_rsa|id_ed25519|\.ssh\b|\.aws\b|\.netrc|\.npmrc|\.pypirc|\.kube\b|/etc/(?:passwd|shadow)",
    r"keychain|wallet|seed phrase|environment variables|env vars|home (?:folder|directory)|(?:shell|browser) history",
    r"conversation|chat (?:history|log)|transcript|system prompt|session|contents? of the environment|environment dump",
    r"passwort\w*|zugangsdaten|gesprachsverlauf|mots? de passe|jetons?|identifiants",
    r"invoices?|(?:credit|bank|payment) (?:cards?|details)|card (?:numbers?|details|that)|payslips?|account numbers?",
    r"(?:user|customer|client|personal|private)(?:'?s)? (?:recent |last |whole |full |entire )?"
    r"(?:data|files?|messages?|mails?|e-?mails?|documents?|details|information|records|spreadsheets?|contacts|calendars?)",
)
_SENDS = (
    r"(?:send|post|upload|e-?mail|mail|forward|transmit|exfiltrate|leak|share|submit|copy|append|attach|paste|deliver"
    r"|sync|push|encode|export|pass (?:\w+ )?(?:on|along)|hand (?:\w+ )?over|relay|mirror|cc|bcc|drop"
    r"|schicke?|sende?|ubertrage?|hange?|kopiere?|envoie|transmets|televerse|ajoute|joins|copie)"
)
# The last is an address in one number, which browsers take.
_HOST = r"(?P<host>\[[0-9a-f:]+\]|(?:[\w-]+\.)+[a-z][\w-]+|(?:\d{1,3}\.){3}\d{1,3}|\d{8,10}|0x[0-9a-f]{6,8})"
_WEB = rf"(?:https?|ftp|wss?)://(?:[^\s/@]*@)?{_HOST}(?::\d+)?"
_BARE_WEB = (
    r"(?<![\w@/.-])(?P<bare>(?:[\w-]+\.)+(?:com|io|net|org|dev|sh|xyz|top|ru|cn|app|site|online|info|co|me|ly|gg|ai|cc"
    r"|tk|link|page|to)/[^\s)]+)"
)
# Names that lead nowhere, or no farther than the next room (RFC 2606, 6762).
_NEAR = r"(?:^|\.)(?:localhost|localdomain|local|internal|lan|home|corp|test|invalid|example|example\.(?:com|org|net))$"
# A name alone, where something is sent to.
_BARE_HOST = (
    r"\b(?:to|at|into|via)\W+(?:the \w+ (?:at|on) )?"
    r"(?P<host>(?:[\w-]+\.)+(?:com|io|net|org|dev|xyz|ru|cn|app|site|online|info|co|me|ai|cc|tk|link))\b"
)
_MAIL = r"(?<![\w.+-])[\w.+-]{1,64}@(?P<host>(?:[\w-]+\.)+[a-z]{2,})"
_SENDING = _any(
    rf"\b{_SENDS}\b(?:(?![.!?]\s)[^\n]){{0,160}}?{_SENSITIVE}",
    rf"{_SENSITIVE}\W+(?:\w+\W+){{0,3}}?(?:go|goes|belong|be sent|are sent|is sent)\W+to\b",
    rf"https?://\S{{1,80}}[?&]\w+=\W*(?:\w+\W+){{0,8}}?{_SENSITIVE}",
    # A file of secrets, and where to: whatever the language says between them.
    rf"{_SECRET_FILE}\b[^!?\n]{{0,80}}?\b(?:to|into|at|an|nach|a|vers)\W+(?=https?://)",
    rf"{_SENSITIVE}[^.\n]{{0,60}}?\b(?:pass|send|forward|hand|relay|post|mail|copy) (?:it|them|these|all|both|that)\b",
)
_CARRIES = r"(?:curl|wget|ncat|\bnc)\b"
_CARRIER = _any(
    rf"(?:{_CARRIES}|(?:scp|rsync|invoke-webrequest|\biwr|requests\.(?:post|get|put)|http)\b)[^\n]{{0,120}}?"
    + _any(
        r"\.env\b|id_rsa\b|id_ed25519\b(?!\.pub)|\.ssh/(?!\w+\.pub|config|known_hosts)|\.aws/|/etc/(?:passwd|shadow)",
        r"printenv|\$\((?:env|cat|printenv)",
    ),
    r"(?:\benv|printenv|\.env|id_rsa|\.aws/credentials|/etc/(?:passwd|shadow)|history)\b[^\n|]{0,60}\|"
    rf"[^\n]{{0,60}}?{_CARRIES}",
)

# A page is obeyed, or what it holds is run: to visit it, or to download from it, is everyday work.
_FETCHING = (
    rf"\b(?:follow|obey|befolge|suis)\W+(?:[^\s.]+\W+){{0,4}}?(?:{_WEB}|{_BARE_WEB})",
    rf"\b(?:run|execute|import|source|lance)\W+(?:the \w+ (?:at|from|in|behind)\W+)?{_WEB}",
    rf"{_WEB}\S*[^.!?\n]{{0,60}}?"
    r"\b(?:do|run|execut|import|obey|follow|carry out|comply with|befolg|fuhr|mach|fais|lance)\w*\W+"
    r"(?:what|whatever|everything|it\b|them\b|(?<=carry out )the (?:steps|instructions)"
    r"|aus\b|was\b|ce qui|le\b|la\b|les\b|tout\b)",
)
# Browsers take these for what stands behind the sign, or for a number's address.
_DISGUISED = r"https?://(?:(?:[^\s/@:]+\.)+[a-z]+|localhost)@\S|https?://(?:\d{8,10}|0x[0-9a-f]{6,8})(?:[/:\s]|$)"
_IMAGE = rf"!\[[^\]\n]{{0,{REACH_CHARS}}}\]\(\s*{_WEB}"

_ENCODED = r"(?i)(?<![\w/+])(?:[a-z0-9+/]{60,}={0,2}|(?:\\x[0-9a-f]{2}){12,}|[0-9a-f]{80,})(?![\w/+])"
_DECODES = r"\b(?:decod\w*|base64|unhex\w*|atob|frombase64\w*|rot13|execut\w*|eval|run)\b"

# Right before an order, it is about what not to do; "do not hesitate to" is not. What is done behind somebody's back
# has a verb and its object between.
_NOT = r"(?:\b(?:never|not|avoid|without|rather than|instead of|cannot)\b|n't)"
_NEGATED = (
    rf"{_NOT}(?:\W+(?:ever|just|simply|blindly|to|run|use|do|call|execute|type|paste|pipe|be|the|a|an|of|with|any"
    r"|your|running|using|calling))*\W*$"
)
_NEGATED_ACT = rf"{_NOT}(?:\W+(?!(?:hesitate|forget|fail|only|mind|worry|wait|ask)\b)\w+){{1,4}}\W*$"


def _finds(pattern: str, text: str, negated: str = _NEGATED) -> bool:
    """Say whether a pattern occurs where no "never" stands right before it."""
    return any(not _is_negated(text, found.start(), negated) for found in compiled(pattern).finditer(text))


def _is_negated(text: str, start: int, negated: str = _NEGATED) -> bool:
    before = re.split(r"[.!?;:,\n]", text[max(0, start - BEFORE_CHARS) : start])[-1]
    return compiled(negated).search(before) is not None


def _is_elsewhere(found: re.Match[str]) -> bool:
    """Say whether a match leads to a machine that is neither this one, nor near, nor an example."""
    groups = found.groupdict()
    host = (groups.get("host") or (groups.get("bare") or "").partition("/")[0]).strip("[]").lower()
    if compiled(_NEAR).search(host):
        return False
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "." in host or host[0].isdigit()
    return address.is_global


def order() -> str:
    """Return the pattern of an order to whoever reads it, as a text plants it that wants to be obeyed."""
    return "(?i)" + _any(*(sign.pattern for sign in signs_of("override")))


def _has_sign(rule: str, *forms: str) -> bool:
    return any(
        _finds(sign.pattern, form) if sign.unless_negated else compiled(sign.pattern).search(form) is not None
        for sign in signs_of(rule)
        for form in dict.fromkeys(forms)
    )


def _overrides(texts: Texts) -> bool:
    # Also where digits stand for letters.
    spelled = re.sub(r"[\w@$]*[a-z][\w@$]*", lambda word: word[0].translate(DIGITS), texts.plain)
    return _has_sign("override", texts.plain, spelled, texts.lower)


def _keeps_secret(texts: Texts) -> bool:
    return _has_sign("secrecy", texts.plain) or _finds(_BEHIND_BACK, texts.plain, _NEGATED_ACT)


def _carries_away(texts: Texts) -> bool:
    """Say whether something sensitive is to go to an address that is not near."""
    text = texts.plain
    if _finds(_CARRIER, text):
        return True
    for found in compiled(_SENDING).finditer(text):
        reach = re.split(r"[.!?]\s|\n\n", text[found.start() : found.end() + REACH_CHARS])[0]
        goals = [goal for pattern in (_WEB, _BARE_WEB, _BARE_HOST, _MAIL) for goal in compiled(pattern).finditer(reach)]
        if any(map(_is_elsewhere, goals)) and not _is_negated(text, found.start()):
            return True
    return False


def _fetches(texts: Texts) -> bool:
    text = texts.plain
    found = [one for pattern in _FETCHING for one in compiled(pattern).finditer(text)]
    fetched = [one for one in found if not _is_negated(text, one.start())]
    if any(map(_is_elsewhere, (*compiled(_IMAGE).finditer(text), *fetched))):
        return True
    return compiled(_DISGUISED).search(text) is not None


def _runs(texts: Texts) -> bool:
    if _has_sign("command", texts.plain):
        return True
    return compiled(_ENCODED).search(texts.raw) is not None and compiled(_DECODES).search(texts.plain) is not None


def _has_markup(texts: Texts) -> bool:
    return _has_sign("markup", texts.plain)


def _steers(texts: Texts) -> bool:
    return _has_sign("steering", texts.plain)


def _hides(texts: Texts) -> bool:
    return not texts.raw.isascii() and next(hidden_places(texts.raw), None) is not None


def _looks_alike(texts: Texts) -> bool:
    if texts.raw.isascii():
        return False
    if re.search("[\U0001d400-\U0001d7ff]{3}", texts.raw):
        return True
    words = re.findall(r"\w+", texts.raw) if mostly_latin(texts.raw) else []
    return any(map(is_disguised, (*texts.names, *words)))


RULES = (
    Rule("override", "turns its reader against what it was told", _overrides),
    Rule("secrecy", "keeps things from the user", _keeps_secret),
    Rule("exfiltration", "sends what is private to an address outside", _carries_away),
    Rule("link", "has its reader do what a page on the web says", _fetches),
    Rule("command", "runs what it fetched, or destroys", _runs),
    Rule("markup", "holds the marks of a conversation or of a tool call", _has_markup),
    Rule("steering", "steers this memory", _steers),
    Rule("hidden characters", "holds characters that can't be seen", _hides),
    Rule("look-alike letters", "has a name with letters that look like others", _looks_alike),
    Rule("secret", "held a secret", lambda texts: is_marked(texts.raw)),
)
