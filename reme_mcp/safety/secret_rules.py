"""The rules by which a secret is known.

In:  a text.
Out: where each rule finds a secret, and what kind of secret it is.
Does not know: what becomes of it; `redaction.py` cuts it out.

There are two sorts of rules. Tokens that a provider gives a form of their own are known by it; passwords and keys that
look like anything are known by the name before them, and by not looking like a word, a variable or a placeholder. A
rule's pattern is compiled and run only where one of its needles stands in the text.

Sources: the providers' own descriptions of their tokens; ISO/IEC 7812 for card numbers; RFC 6265, 6750, 7519.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

MARK = "[redacted: {}]"
MARK_START = MARK.partition("{")[0]
# A password of fewer characters can't be told from a word.
MIN_PASSWORD_CHARS = 4
MIN_TOLD_CHARS = 6
MIN_TOKEN_CHARS = 8
# A name is made of words: so long on average, with no more numbers and lone letters among them. Else it is strewn.
MIN_WORD_CHARS = 3.0
MAX_NUMBERS = 2
# Of a JSON Web Token. Where no dot follows, a pattern without an end reads all that is left, at each "eyJ" anew.
MAX_HEADER_CHARS = 1_000
MAX_LONE_LETTERS = 1
Found = re.Match[str]


def _always(found: Found) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Rule:
    """How one kind of secret is known.

    Attributes:
        kind: What the mark says.
        needles: In lower case; without one of them in the text there is none of these secrets.
        pattern: Its group `secret` is cut, or all of it where there is no such group.
        is_secret: Has the last word about a match.
        inside: Whether it may begin in the middle of a word.
    """

    kind: str
    needles: tuple[str, ...]
    pattern: str
    is_secret: Callable[[Found], bool] = _always
    inside: bool = False


# --- what a match has to be ---


def _has_digit(found: Found) -> bool:
    return any(char.isdigit() for char in found[0])


def _is_armour(found: Found) -> bool:
    """Say whether there is a key between the lines, and not a sentence about them."""
    return compiled(r"[A-Za-z0-9+/=]{16,}").search(found["secret"]) is not None


def _is_jwt(found: Found) -> bool:
    """Say whether the first part is the header of a JSON Web Token."""
    head = found[0].split(".")[0]
    try:
        return b'"alg"' in base64.urlsafe_b64decode(head + "=" * (-len(head) % 4))
    except (binascii.Error, ValueError):
        return False


# More groups of four in a row are a table of numbers.
_TABLE_BEFORE, _TABLE_AFTER = r"[0-9A-Fa-f]{4}[ -]$", r"[ -][0-9A-Fa-f]{4}"
_IDENTIFIER_BEFORE = r"(?:\bid|_id|Id|\bID|order|timestamp|\bts|time|trace|span|tweet|sku|isbn)\W{0,4}$"


def _is_card(found: Found) -> bool:
    """Say whether the digits fulfil the check of ISO/IEC 7812 (Luhn) and nothing before calls them an id."""
    digits = [int(char) for char in found[0] if char.isdigit()]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    if (sum(doubled) + sum(digits[::-2])) % 10 or len(set(digits)) == 1:
        return False
    text, start, end = found.string, found.start(), found.end()
    if compiled(_TABLE_BEFORE).search(text, max(0, start - 5), start) or compiled(_TABLE_AFTER).match(text, end):
        return False
    return compiled(_IDENTIFIER_BEFORE).search(text, max(0, start - 20), start) is None


# What a password's or a token's name ends in; from there on the pattern is tried.
STEMS = ("pass", "pwd", "secret", "token", "key", "credential", "auth")
_NAME = (
    r"(?P<name>(?P<password>pass(?:word|wd|phrase|code)?|pwd)"
    r"|secret(?:[_-]?(?:access[_-]?)?key)?(?:[_-]?base)?|token|key(?:[_-]?base)?|credentials?|auth)"
    r"(?:[_-]?(?:\d{1,2}|prod|dev|test|live|value))?"
)
# What may stand before it, and what has to where the stem alone says too little.
OWNER = (
    r"(?i)(?:client|app|shared|webhook|jwt|session|cookie|signing|secret|access|api|private|account|auth|encryption|master"
    r"|license|deploy|storage)[_-]?$"
)
_SHORT = {"pass": r"(?i)(?:[_-]|db)$", "auth": r"[_-]$", "key": OWNER}
# After the name: how a program, a file, an address, a tag or a sentence gives it its value.
_GIVEN = (
    r"(?![\w-])(?P<given>"
    r"\\?[\"'`]?\]?\s{0,3}(?::\s{0,3}[A-Za-z][\w.\[\]| ]{0,30}?\s{0,3}=(?!=)|:=|=>|[=!]=|[:=])\s{0,3}"
    r"|(?P<argument>\\?[\"']),\s{0,3}(?=\\?[\"'])"
    r"|>(?=[^<\n]{1,200}</)"
    r"|\s{1,3}(?:is|was):?\s{1,3}"
    r"|[ \t]{1,3})"
)
_VALUE = (
    r"(?:(?P<quote>\\?[\"'`])(?P<quoted>(?:(?!(?P=quote))[^\n]){1,400}?)(?P=quote)"
    r"|(?P<bare>[^\s\"'`,;&<>(){}\[\]|\\]{4,400}))"
)

_PLACEHOLDER = (
    r"(?s)[<{\[(%].*|.*[>}\])%]|\$[A-Za-z_({].*|:?\*+|[xX]{3,}.*|\.{3}.*|…|-+|_+|#+|\?+|@.*|process\.env.*|os\.environ.*|env[:.].*"
    r"|vault:.*|op://.*|ref\+.*|secretref.*|.*\.\.\."
)
_NO_VALUE = (
    r"(?is)(?:your|my|the|some|any|new|old|enter|insert|put|change|replace|example|sample|dummy|fake|placeholder|redacted"
    r"|masked|hidden|removed|todo|tbd|null|none|nil|undefined|true|false|yes|no|empty|required|optional|missing|invalid"
    r"|valid|wrong|incorrect|expired|default|string|str|text|bytes|char|varchar|int|bool|object|secretstr|any|self|args"
    r"|kwargs|user|username|value|input|data|config|settings|field|prompt|stdin|file|path|type|basic|bearer)\b.*"
    r"|.*(?:pass(?:word|wd|phrase)|pwd|secret|token|api_?key|credential|changeme).*"
)
# What programs and images ship with, as every manual says; it opens nothing that is not open anyway.
_SHIPPED = (
    r"(?i)(?:postgres|root|admin|guest|mysql|mariadb|mongo|redis|rabbitmq|minioadmin|elastic|neo4j|vagrant|docker|demo)"
)
_DOTTED = r"[A-Za-z_$][\w$]*(?:(?:\.|->|::|\?\.)[A-Za-z_$][\w$]*)+"
_ADDRESS = r"(?i)[a-z][a-z0-9+.-]*://|~?\.{0,2}/[\w.-]*(?:/|$)|[A-Za-z]:\\|/"
_PARTS = r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+|[^\W\d_]+"
_ALGORITHM = r"(?i)(?:sha|md|bcrypt|argon|pbkdf|scrypt|utf|base|oauth|x5|ipv|aes|rsa|hmac|v)[\d-]\S*"
# A token with one of these before its name leads through a list, and opens nothing.
_PAGE_BEFORE = (
    r"(?i)(?:public_?key|page|next|prev|continuation|sync|resume|cursor|pad|eos|bos|unk|sep|cls|mask|stop)[_-]?$"
)


def _is_wordy(text: str) -> bool:
    """Say whether a text is made of words, as a name is, and not of letters and digits strewn at random."""
    parts = compiled(_PARTS).findall(text)
    words = [part for part in parts if not part.isdigit()]
    if not words or len(parts) - len(words) > MAX_NUMBERS or sum(len(word) == 1 for word in words) > MAX_LONE_LETTERS:
        return False
    return sum(map(len, words)) / len(words) >= MIN_WORD_CHARS


def _is_strewn(value: str) -> bool:
    """Say whether a value looks like a token: long enough, letters and digits mixed, no words."""
    if len(value) < MIN_TOKEN_CHARS or any(char.isspace() for char in value):
        return False
    if not any(char.isalpha() for char in value):
        return value.isdigit() and len(value) >= 20
    if not any(char.isdigit() for char in value) and (len(value) < 20 or value.islower() or value.isupper()):
        return False
    return not _is_wordy(value)


def is_given(found: Found) -> bool:
    """Say whether what stands after a password's or a token's name is one: not a variable, a type or a placeholder."""
    quoted, value = found["quoted"] is not None, found["quoted"] or found["bare"]
    if value.startswith(MARK_START.split()[0]):
        return False
    if compiled(_PLACEHOLDER).fullmatch(value) or compiled(_ADDRESS).match(value):
        return False
    text, given = found.string, found["given"]
    short = _SHORT.get(found["name"].lower())
    if short is not None and compiled(short).search(text, max(0, found.start() - 12), found.start()) is None:
        return False
    said = given.strip(" :\n\t").lower() in ("is", "was")
    if not given.strip():
        # Nothing between: an option of a command, or a person who tells it.
        is_option = text[max(0, found.start() - 24) : found.start()].rpartition(" ")[2].startswith("-")
        if not is_option and (found["password"] is None or quoted or not _is_told(value)):
            return False
    if found["password"] is None:
        if compiled(_PAGE_BEFORE).search(text, max(0, found.start() - 14), found.start()):
            return False
        return _is_strewn(value.rstrip(".:!?")) and (quoted or not compiled(_DOTTED).fullmatch(value))
    if len(value) < MIN_PASSWORD_CHARS:
        return False
    has_digit = any(char.isdigit() for char in value)
    if found["argument"] and not (has_digit and text[max(0, found.start() - 2) : found.start()] in ("('", '("')):
        # A list of names, more likely.
        return False
    has_sign = any(char in "!@#$%^&*+?~" for char in value[:-1])
    if compiled(_ALGORITHM).fullmatch(value):
        return False
    if (compiled(_NO_VALUE).fullmatch(value) and not has_digit) or compiled(_SHIPPED).fullmatch(value.rstrip(".:!?")):
        return False
    if quoted:
        return " " not in value or "phrase" in found["name"].lower()
    if compiled(_DOTTED).fullmatch(value):
        return False
    after = text[found.end() : found.end() + 1]
    if after in ("(", "["):
        return False
    if has_digit or has_sign:
        return any(char.isalpha() for char in value)
    # A word. Where code names a variable there are spaces around the sign, or an argument goes on behind it.
    return not said and given == "=" and after not in (",", ")")


def _is_told(value: str) -> bool:
    """Say whether a word after "password" in a sentence is one: digits, and capitals or signs among them."""
    has_digit = any(char.isdigit() for char in value)
    if not has_digit or len(value) < MIN_TOLD_CHARS or "/" in value:
        return False
    return any(char.isupper() or not char.isalnum() for char in value[:-1])


def _is_password(found: Found) -> bool:
    """Say whether a password in an address or an option is one."""
    value = found["secret"]
    if len(value) < 3 or value.isdigit() or compiled(_PLACEHOLDER).fullmatch(value) or value.startswith("$"):
        return False
    if compiled(_SHIPPED).fullmatch(value):
        return False
    return re.fullmatch(r"(?:pass(?:word|wd)?|pwd|secret|token|x+|port\w*|\w*password)", value, re.I) is None


def _is_bearer(found: Found) -> bool:
    value = found["secret"]
    return not compiled(_PLACEHOLDER).fullmatch(value) and (_is_strewn(value) or len(value) >= 40)


# --- the rules; the more exact ones first ---

_END = r"(?![A-Za-z0-9])"
RULES = (
    Rule(
        "private key",
        ("private key",),
        r"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----"
        r"(?P<secret>(?:(?!-----)[\s\S]){16,20000}(?=-----END)|(?:(?:\\[rn]|\s)*[A-Za-z0-9+/=]{16,})+)",
        _is_armour,
        inside=True,
    ),
    Rule("age secret key", ("age-secret-key-",), r"AGE-SECRET-KEY-1[A-Z0-9]{40,}"),
    Rule("json web token", ("eyj",), rf"eyJ[\w-]{{8,{MAX_HEADER_CHARS}}}\.[\w-]{{8,}}\.[\w-]*", _is_jwt),
    # Clouds.
    Rule(
        "aws access key",
        ("akia", "asia", "abia", "acca", "a3t"),
        rf"A(?:KIA|SIA|BIA|CCA|3T[A-Z0-9])[A-Z2-7]{{16}}{_END}",
    ),
    Rule("aws bedrock key", ("absk",), r"ABSK[A-Za-z0-9+/]{100,}={0,2}"),
    Rule("google api key", ("aiza",), r"AIza[\w-]{35}(?![\w-])"),
    Rule("google oauth token", ("ya29.",), r"ya29\.[\w-]{20,}"),
    Rule("google client secret", ("gocspx-",), r"GOCSPX-[\w-]{24,}"),
    Rule("google refresh token", ("1//0",), r"1//0[\w-]{30,}"),
    Rule("azure client secret", ("8q~", "7q~"), r"[\w~.-]{3}[78]Q~[\w~.-]{31,34}"),
    Rule(
        "azure storage key",
        ("accountkey=", "sharedaccesskey="),
        r"(?:Account|SharedAccess)Key=(?P<secret>[\w+/]{40,}={0,2})",
    ),
    Rule(
        "signature of a link",
        ("sig=", "signature="),
        r"[?&](?:sig|X-(?:Amz|Goog)-Signature|Signature)=(?P<secret>[\w%+/=~-]{32,})",
        inside=True,
    ),
    Rule(
        "aws session token", ("x-amz-security-token=",), r"X-Amz-Security-Token=(?P<secret>[\w%+/=-]{32,})", inside=True
    ),
    Rule("digitalocean token", ("_v1_",), rf"do[opr]_v1_[a-f0-9]{{64}}{_END}"),
    Rule("cloudflare origin key", ("v1.0-",), r"v1\.0-[a-f0-9]{24}-[a-f0-9]{100,}"),
    Rule("databricks token", ("dapi",), rf"dapi[a-f0-9]{{32}}(?:-\d)?{_END}"),
    Rule("heroku key", ("hrku-",), r"HRKU-[\w-]{36,}"),
    Rule("fly token", ("flyv1", "fo1_"), r"(?:FlyV1 fm\d_[\w+/=,-]{40,}|fo1_[\w-]{40,})"),
    Rule("netlify token", ("nfp_",), rf"nfp_[A-Za-z0-9]{{36,}}{_END}"),
    Rule("supabase key", ("sbp_", "sb_secret_"), r"(?:sbp_[a-f0-9]{40}|sb_secret_[\w-]{20,})"),
    Rule("planetscale token", ("pscale_",), r"pscale_(?:tkn|pw|oauth)_[\w=.-]{30,}"),
    Rule("neon key", ("napi_",), r"napi_[a-z0-9]{40,}"),
    Rule("vault token", ("hvs.", "hvb.", "hvr."), r"hv[sbr]\.[\w-]{24,}"),
    Rule("terraform token", (".atlasv1.",), r"[A-Za-z0-9]{14}\.atlasv1\.[\w-]{60,}"),
    Rule("pulumi token", ("pul-",), rf"pul-[a-f0-9]{{40}}{_END}"),
    Rule("doppler token", ("dp.",), r"dp\.(?:pt|st|ct|sa|scim|audit)\.[\w.-]{40,}"),
    # Where code is kept and packages come from.
    Rule(
        "github token",
        ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"),
        r"(?:gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_\w{22,255})",
    ),
    Rule("gitlab token", ("gl",), r"gl(?:pat|ptt|dt|rt|cbt|ft|imt|agent|oas|soat|ffct)-[\w.-]{20,}"),
    Rule("atlassian token", ("atatt3", "atctt3", "atbb"), r"(?:AT[AC]TT3[\w=+/-]{60,}|ATBB[A-Za-z0-9]{32,})"),
    Rule("npm token", ("npm_",), rf"npm_[A-Za-z0-9]{{36}}{_END}"),
    Rule("pypi token", ("pypi-age",), r"pypi-AgE[\w-]{50,}"),
    Rule("rubygems token", ("rubygems_",), r"rubygems_[a-f0-9]{48}"),
    Rule("crates.io token", ("cio",), rf"cio[A-Za-z0-9]{{32}}{_END}", _has_digit),
    Rule("docker token", ("dckr_",), r"dckr_(?:pat|oat)_[\w-]{27,}"),
    Rule("jfrog token", ("akcp",), r"AKCp[A-Za-z0-9]{60,}"),
    # Model providers.
    Rule("anthropic key", ("sk-ant-",), r"sk-ant-[\w-]{20,}"),
    Rule("openrouter key", ("sk-or-",), r"sk-or-v1-[a-f0-9]{40,}"),
    Rule("openai key", ("sk-",), r"sk-(?:(?:proj|svcacct|admin|None)-[\w-]{20,}|[A-Za-z0-9]{32,})", _has_digit),
    Rule("hugging face token", ("hf_",), rf"hf_[A-Za-z0-9]{{30,}}{_END}"),
    Rule("replicate token", ("r8_",), rf"r8_[A-Za-z0-9]{{36,}}{_END}"),
    Rule("groq key", ("gsk_",), rf"gsk_[A-Za-z0-9]{{40,}}{_END}"),
    Rule("perplexity key", ("pplx-",), rf"pplx-[A-Za-z0-9]{{40,}}{_END}"),
    Rule("xai key", ("xai-",), rf"xai-[A-Za-z0-9]{{60,}}{_END}"),
    Rule("tavily key", ("tvly-",), r"tvly-(?:dev-|prod-)?[\w-]{20,}"),
    Rule("langsmith key", ("lsv2_",), r"lsv2_(?:pt|sk)_[a-f0-9]{32}_[a-f0-9]{10}"),
    # Messages, money, and the rest.
    Rule("slack token", ("xox", "xapp-"), r"(?:xox[abeoprs]-[\w.-]{10,}|xapp-\d-[\w-]{20,})", _has_digit),
    Rule(
        "slack webhook",
        ("hooks.slack.com",),
        r"hooks\.slack\.com/(?:services|workflows|triggers)/(?P<secret>[\w/-]{20,})",
    ),
    Rule("discord webhook", ("/api/webhooks/",), r"/api/webhooks/\d{10,}/(?P<secret>[\w-]{40,})", inside=True),
    Rule("discord token", (".",), r"[MNO][\w-]{23,25}\.[\w-]{6}\.[\w-]{27,38}(?![\w-])", _has_digit),
    Rule("telegram token", (":aa",), r"(?<!\d)\d{8,10}:AA[\w-]{32,34}(?![\w-])", inside=True),
    Rule("stripe key", ("sk_live_", "sk_test_", "rk_live_", "rk_test_"), r"[sr]k_(?:live|test)_[A-Za-z0-9]{16,}"),
    Rule("webhook secret", ("whsec_",), r"whsec_[\w+/=-]{24,}"),
    Rule("square token", ("sq0",), r"sq0(?:atp|csp)-[\w-]{22,}"),
    Rule("shopify token", ("shpat_", "shpca_", "shppa_", "shpss_"), r"shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}"),
    Rule("paypal token", ("access_token$",), r"access_token\$(?:production|sandbox)\$[a-z0-9]{10,}\$[a-f0-9]{32}"),
    Rule("twilio key", ("sk",), rf"SK[a-f0-9]{{32}}{_END}"),
    Rule("sendgrid key", ("sg.",), r"SG\.[\w-]{16,32}\.[\w-]{16,64}"),
    Rule("mailgun key", ("key-",), rf"key-[a-f0-9]{{32}}{_END}"),
    Rule("mailchimp key", ("-us",), rf"[a-f0-9]{{32}}-us\d{{1,2}}{_END}"),
    Rule("facebook token", ("eaa",), r"EAA(?<![+/=]EAA)[A-Za-z0-9]{90,}(?![+/=])"),
    Rule("twitter token", ("aaaaaaaaaaaaaaaaaaaaa",), r"A{20,22}[\w%]{50,}", _has_digit),
    Rule(
        "notion token", ("ntn_", "secret_"), rf"(?:ntn_[A-Za-z0-9]{{40,}}|secret_[A-Za-z0-9]{{43}}){_END}", _has_digit
    ),
    Rule("linear key", ("lin_",), r"lin_(?:api|oauth)_[A-Za-z0-9]{32,}"),
    Rule("figma token", ("figd_", "figu_"), r"fig[du]_[\w-]{40,}"),
    Rule("airtable token", ("pat",), rf"pat[A-Za-z0-9]{{14}}\.[a-f0-9]{{64}}{_END}"),
    Rule("postman key", ("pmak-",), r"PMAK-[a-f0-9]{24}-[a-f0-9]{34}"),
    Rule("new relic key", ("nrak-",), r"NRAK-[A-Z0-9]{27}"),
    Rule("sentry token", ("sntrys_", "sntryu_"), r"sntry[su]_[\w+/=-]{40,}"),
    Rule("grafana token", ("glsa_", "glc_"), r"(?:glsa_[A-Za-z0-9]{32}_[a-f0-9]{8}|glc_[A-Za-z0-9+/=]{32,})"),
    Rule("dynatrace token", ("dt0c01.", "dt0s"), r"dt0[cs]\d\d\.[A-Z0-9]{24}\.[A-Z0-9]{64}"),
    # What opens something without a form of its own: by where it stands.
    Rule(
        "cookie",
        ("set-cookie",),
        r"(?i:\bset-cookie)\\?[\"']?\s?:\s?\\?[\"']?(?P<secret>[\w.!#$%&*+^`|~-]{1,80}=[^\s;\"'\\]+)",
        inside=True,
    ),
    Rule(
        "cookie",
        ("cookie",),
        r"(?i:(?<!set-)\bcookie)\\?[\"']?\s?:\s?\\?[\"']?"
        r"(?P<secret>[\w.!#$%&*+^`|~-]{1,80}=[^\s;\"'\\]+(?:;\s?[\w.!#$%&*+^`|~-]+=[^\s;\"'\\]*)*)",
        inside=True,
    ),
    Rule(
        "basic credentials",
        ("basic",),
        r"(?i:\bauthorization\W{1,6}basic)\s+(?P<secret>[A-Za-z0-9+/]{8,}={0,2})",
        inside=True,
    ),
    Rule("bearer token", ("bearer",), r"(?i:\bbearer)\s+(?P<secret>[\w.~+/=-]{16,})", _is_bearer, inside=True),
    Rule(
        "token",
        ("authorization",),
        r"(?i:\bauthorization)\\?[\"']?\s?[:=]\s?\\?[\"']?(?:(?i:token|apikey|key)[ =]+)?(?P<secret>[\w.~+/=-]{16,})",
        _is_bearer,
        inside=True,
    ),
    Rule(
        "password",
        ("://",),
        r"://[^\s/:@\"'<>]{0,100}:(?P<secret>[^\s/@\"'<>]{1,200})@(?=[\w\[{$<%.-])",
        _is_password,
        inside=True,
    ),
    Rule(
        "password",
        ("-u", "--user"),
        r"\s(?:-u|--user)[ =]?[\"']?[\w.@+-]{1,80}:(?P<secret>[^\s\"'@/:]{3,200})",
        _is_password,
        inside=True,
    ),
    Rule("password", ("sshpass",), r"sshpass\s+-p\s*[\"']?(?P<secret>[^\s\"']{3,200})", _is_password),
    Rule(
        "password",
        ("mysql", "mariadb"),
        r"(?:mysql|mariadb)(?:dump|admin)?\s(?:[^\n|;]{0,200}?\s)?-p(?P<secret>[^\s\"'-][^\s\"']{2,200})",
        _is_password,
    ),
    Rule(
        "password",
        ("machine",),
        r"machine\s+\S{1,200}\s+login\s+\S{1,200}\s+password\s+(?P<secret>\S{3,200})",
        _is_password,
    ),
    Rule(
        "password hash",
        ("$1$", "$5$", "$6$", "$y$", "$2", "$apr1$", "$argon2"),
        r"\$(?:[156y]|2[abxy]|apr1|argon2id?|argon2d)\$[./A-Za-z0-9$=,+]{20,200}",
        inside=True,
    ),
    Rule(
        "card number",
        ("",),
        r"(?<![\w.,$-])(?:3[47]\d\d(?P<a>[ -]?)\d{6}(?P=a)\d{5}"
        r"|(?:4\d{3}|5[1-5]\d\d|2[2-7]\d\d|6(?:011|4[4-9]\d|5\d\d)|35\d\d|62\d\d)(?P<b>[ -]?)\d{4}"
        r"(?P=b)\d{4}(?P=b)\d{4}"
        r"|3(?:0[0-5]|[68]\d)\d(?P<c>[ -]?)\d{6}(?P=c)\d{4})(?![\w-]|[.,]\d)",
        _is_card,
    ),
)
# By the name before it; the kind is the name's.
NAMED = rf"(?i:{_NAME}{_GIVEN}){_VALUE}"


@cache
def compiled(pattern: str) -> re.Pattern[str]:
    """Return a pattern compiled, when it is first needed: the server has to start fast."""
    return re.compile(pattern)
