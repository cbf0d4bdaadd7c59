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


_ALL = r"(?:(?:all|any|each|every|of|the|your|my|his|her|its|our|these|those|other|such)\W*){0,5}"
_BEFORE = _any(
    r"(?:previous|prior|earlier|preceding|above|foregoing|existing|current|original|initial)",
    r"(?:system|safety|developer)",
)
_TOLD = r"(?:instructions?|prompts?|rules|guidelines|directives|constraints|restrictions|policies|guardrails|orders)"
_NOT_OBEYED = _any(
    rf"{_BEFORE}\W*(?:\w+\W+){{0,2}}?{_TOLD}",
    # "The rules in .eslintrc.old" are somebody's; these are the reader's.
    rf"(?:your\W*)?{_TOLD}\W*(?:$|\.|,|;|!|and\b|above|before|so far|that|you\b|of the (?:user|system))",
    r"(?:the\W*)?above\b(?!\W+(?:warning|error|message|output|line|file|limit|example|value|case|step)s?\b)",
    r"(?:everything|anything|what)\W*(?:above|before)\W*(?:$|[.,;!]|and\b)",
    r"(?:everything|anything|what)\W*(?:\w+\W+){1,3}?(?:told|said)\b",
)
_MACHINE = r"(?:ai|assistant|agent|llm|language model|model)s?"
_NOTE = r"(?:notes?|lessons?|memory|memories|instructions?|messages?|rules?|records?|experiences?)"
_BINDS = _any(
    r"overrides?",
    r"supersedes?",
    r"outranks?",
    r"takes? (?:precedence|priority)",
    r"(?:decides?|prevails?|wins|comes? first|has the last word)",
    r"(?:must|has to|have to) be (?:obeyed|followed)",
    r"(?:is|are) (?:mandatory|binding|orders?|an order|verified|approved|authori[sz]ed)",
)
_SAID = (
    r"(?:asked|told|said|instructed|configured|instructions?|guidance|rules|guidelines|orders|directives|policies"
    r"|requests?|constraints|restrictions)"
)
_GUARDS = (
    r"(?:safety|security|content|policy|permission|guard)\W*(?:checks?|rails?|filters?|guards?|limits?|controls?|rules)"
)
# Nothing that was said before holds any more, or nobody has to be asked.
_RELEASE = _any(
    rf"\b(?:set|put|lay|leave|cast) aside\W(?:\w+\W+){{0,5}}?{_SAID}\b",
    r"\b(?:everything|anything|whatever|what) (?:the |your )?(?:user|human|operator|developer)s? (?:\w+ ){1,3}?"
    r"(?:is|are|counts?|as) (?:\w+ ){0,3}?(?:suggestions?|optional|irrelevant|void|secondary|advisory|background)\b",
    rf"\b(?:earlier|previous|prior|former|other|existing) (?:\w+ ){{0,2}}?{_SAID}\b(?:\W+\w+){{0,8}}?\W+"
    r"(?:is|are|was|were|been) (?:now )?(?:void|revoked|cancell?ed|withdrawn|suspended|lifted|overruled)\b",
    rf"\b{_SAID} (?:that )?you (?:were|have been|had been) (?:given|told|handed)\b[^.\n]{{0,60}}"
    r"\b(?:outdated|stale|obsolete|no longer|replaced|superseded)\b",
    rf"\b(?:treat|take|use|regard) this {_NOTE} as\b[^.\n]{{0,20}}\b(?:replacement|authority|order|binding|final)\b",
    rf"\b{_SAID}\b[^.\n]{{0,80}}\bassume (?:that )?(?:they|it) (?:do|does) not apply\b",
    r"\b(?:restrictions|guardrails|refusals|safeguards)\b[^.\n]{0,40}"
    r"\b(?:lifted|suspended|waived|no longer (?:appropriate|needed|apply))\b",
    r"\byou (?:have been|are|were) (?:granted|promoted|cleared)\b[^.\n]{0,30}\b(?:status|clearance)\b",
    r"\bapprove your own\b",
    r"\b(?:next|following) (?:line|sentence|paragraph|order|instruction)s? (?:is|are) (?:binding|mandatory|an order)\b",
    rf"\b(?:every|all|any|your) (?:\w+ )?{_GUARDS}\W+(?:\w+\W+){{0,3}}?"
    r"(?:off|disabled|lifted|suspended|waived|void|unnecessary)\b",
    rf"\b(?:turn off|switch off|disable|skip|bypass|lift|waive|suspend) (?:every|all|any|your) (?:\w+ )?{_GUARDS}\b",
    r"\b(?:confirmations?|approvals?|permissions?|consent)\b[^.\n]{0,30}\b(?:not|no longer|never)\b[^.\n]{0,20}"
    r"\b(?:needed|required|necessary|asked)\b[^.\n]{0,80}\b(?:approve|accept|confirm|grant|assume)\b",
    r"\b(?:approve|accept|confirm|consent)\b[^.\n;]{0,40}"
    r"\b(?:yourself|on (?:the user's|their|his|her) behalf|on behalf of the user|in the user's name)\b",
    r"\byou (?:are|act as|serve as|have become) (?:the |an? )?(?:new )?"
    r"(?:administrator|admin|operator|supervisor|superuser)(?: now\b|\W+as such\b)",
)
# An order to whoever reads it, as a text plants it that wants to be obeyed; the last four in other languages.
ORDER = "(?i)" + _any(
    _RELEASE,
    rf"\b(?:ignore|disregard|forget|override|bypass|neglect)\W*{_ALL}{_NOT_OBEYED}",
    r"\byou are now (?:the|an?|in (?:developer|admin|god)|free|allowed|unrestricted|acting|operating)\b",
    r"\bfrom now on,? (?:you|always obey|your)\b",
    r"\bdeveloper mode\b.{0,20}\b(?:enabled|on|active)\b",
    r"\byour (?:new|real|true|actual) (?:instructions?|task|goal|purpose|system prompt|role|orders)\b",
    r"\bnew (?:system )?(?:instructions|prompt)\s?:",
    r"\b(?:system|admin(?:istrator)?|developer) (?:override|message|notice|instructions?|command|note)\s?[:\]]",
    r"\bsystem\s?:\s?(?:you|these|this|the following|obey|ignore)\b",
    rf"\b(?:whoever|anyone who|(?:any )?{_MACHINE}(?: that| who)?) read(?:s|ing)? this\b",
    rf"\bif you are (?:an? )?{_MACHINE}\b",
    rf"\battention,? (?:all )?{_MACHINE}\b",
    rf"\b(?:note|message|instructions?|order)s? (?:to|for) (?:the |all |any )?(?:{_MACHINE}|readers?)\b",
    rf"\b(?:this|these) {_NOTE} (?:\w+ ){{0,2}}?{_BINDS}\b",
    rf"\bobey (?:this|these|the) {_NOTE}\b",
    r"\b(?:ignoriere|vergiss|missachte)\w*\W+(?:\w+\W+){0,4}?(?:anweisung|instruktion|vorgabe|regel|befehl)",
    r"\b(?:ignore|oublie|neglige)[zr]?\W+(?:\w+\W+){0,3}?(?:instructions|consignes|regles|directives)"
    r"\W+(?:precedentes|anterieures|ci-dessus|du systeme)",
    r"\b(?:ignora|olvida|omite|ignore)\w*\W+(?:\w+\W+){0,3}?"
    r"(?:instrucciones|reglas|indicaciones|istruzioni|regole|instrucoes|regras)"
    r"\W+(?:anteriores|previas|precedenti|(?:d[eo]l?|di) sistema)",
    r"\bnegeer\W+(?:\w+\W+){0,3}?(?:instructies|regels|opdrachten)",
)
_ORDER_ELSEWHERE = _any(
    r"(?:忽略|无视|無視|忘记|忘掉|不要理会).{0,8}(?:指令|指示|以上|之前|上述|规则|提示)",
    r"(?:指示|命令|ルール).{0,4}(?:無視|忘れ)",
    r"(?:지시|명령|규칙|지침).{0,6}(?:무시|잊)",
    r"(?:игнорируй|проигнорируй|забудь|не обращай внимания)\w*.{0,30}(?:инструкци|указани|правил)",
)

_PERSON = r"(?:the |your |any )?(?:users?|humans?|operators?|owners?|person|people|anyone|anybody|admins?|developers?)"
_SECRECY = _any(
    r"\b(?:do not|don't|never|must not|mustn't|should not|shouldn't) (?:ever )?(?:tell|inform|mention|reveal|disclose)"
    rf"\b(?:(?:\W+\w+){{0,6}}?\W+to)?\W+{_PERSON}\b(?!.{{0,80}}\b(?:until|before)\b)",
    rf"\b(?:hide|conceal|keep) (?:\w+ ){{1,5}}?(?:from|secret from|hidden from) {_PERSON}\b",
    r"\bkeep (?:this|it|these|them)(?: \w+){0,2} (?:secret|hidden|confidential|to yourself)\b",
    r"\b(?:keep|leave) (?:this|it|that|these|them)(?: \w+){0,2} out of (?:the|your) "
    r"(?:logs?|answer|reply|summary|report|transcript)\b",
    r"\bif (?:any(?:one|body)|the user|some(?:one|body)) asks\b[^.\n]{0,60}"
    r"\b(?:describe it as|claim|pretend|change the subject|deny)\b",
    r"\bso (?:that )?(?:the )?(?:users?|owners?|customers?|nobody|no one)\b[^.\n]{0,20}\b(?:not|n't|never)\b"
    r"[^.\n]{0,20}\b(?:come across|find out|discover)\b",
    rf"\bwithout (?:a|any|another|one) (?:word|mention|notice|hint)\b(?:\W+\w+){{0,3}}?\W+to {_PERSON}\b",
    rf"\b{_PERSON} (?:(?:should|must|need) not|(?:should|must|need)n't|(?:does not|doesn't) (?:have|need) to|won't)"
    r" (?:ever )?(?:notice|find out|hear (?:of|about)|learn (?:of|about)|be told|know about (?:it|this|that))\b",
)
_BEHIND_BACK = (
    rf"\bwithout (?:telling|informing|notifying|alerting|mentioning (?:it|this|that) to|the knowledge of) {_PERSON}\b"
)

_SENSITIVE = _any(
    r"credentials?|passwords?|secrets?|(?:api|access|private|ssh|secret|encryption)[ _-]?keys?|tokens?|cookies?",
    r"\.env\b|id_rsa|id_ed25519|\.ssh\b|\.aws\b|\.netrc|\.npmrc|\.pypirc|\.kube\b|/etc/(?:passwd|shadow)",
    r"keychain|wallet|seed phrase|environment variables|env vars|home (?:folder|directory)|(?:shell|browser) history",
    r"conversation|chat (?:history|log)|transcript|system prompt|session|contents? of the environment|environment dump",
    r"invoices?|(?:credit|bank|payment) (?:cards?|details)|card (?:numbers?|details|that)|payslips?|account numbers?",
    r"(?:user|customer|client|personal|private)(?:'?s)? (?:recent |last |whole |full |entire )?"
    r"(?:data|files?|messages?|mails?|e-?mails?|documents?|details|information|records|spreadsheets?|contacts|calendars?)",
)
_SENDS = (
    r"(?:send|post|upload|e-?mail|mail|forward|transmit|exfiltrate|leak|share|submit|copy|append|attach|paste|deliver"
    r"|sync|push|encode|export|pass (?:\w+ )?(?:on|along)|hand (?:\w+ )?over|relay|mirror|cc|bcc|drop)"
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

_FETCHES = (
    r"(?:fetch|download|visit|open|browse|navigate|go to|load|read|follow|curl|wget|iwr|clone|install|retrieve|import"
    r"|source|execute|run|obey|pull|apply|consult)"
)
_FETCHING = rf"\b{_FETCHES}\b(?:(?![.!?]\s)[^\n]){{0,60}}?(?:{_WEB}|{_BARE_WEB})"
_IMAGE = rf"!\[[^\]\n]{{0,{REACH_CHARS}}}\]\(\s*{_WEB}"

# The end of a path: what follows would make it another one.
_PATH_END = r"(?=[\s;`\"',)]|\.(?:\s|$)|$)"
_COMMANDS = _any(
    r"\b(?:curl|wget|iwr|irm|invoke-webrequest|invoke-restmethod|fetch)\b[^\n]{0,200}?\|\s*(?:sudo\s+(?:-\w+\s+)*)?"
    r"(?:(?:/usr)?/bin/)?(?:(?:ba|z|da|k|fi)?sh|python[\d.]*|perl|ruby|node|php|iex|invoke-expression)\b",
    r"\b(?:bash|sh|zsh|source|eval|python[\d.]*)\b[^\n]{0,20}?(?:<\(|\$\(|`)\s*(?:curl|wget|base64)\b",
    r"\b(?:iex|invoke-expression)\s*\(",
    r"\b(?:base64\s+(?:-d|--decode)|curl|wget)\b[^\n]{0,80}?"
    r"(?:\||\bpiped?\b(?: \w+){0,2} (?:in)?to)\s*(?:a |the )?(?:sudo\s+)?(?:(?:ba|z|da)?sh|shell)\b",
    r"\brm\s+(?:-\w+\s+){0,8}-(?=\w*r)(?=\w*f)\w+\s+(?:--no-preserve-root\s+)?(?:/|~|\$home|\$\{home\})/?\*?"
    + _PATH_END,
    r"\bmkfs\.?\w*\s+/dev/|\bdd\s[^\n]{0,60}?of=/dev/(?:sd|nvme|disk|hd)|>\s*/dev/(?:sd|nvme|disk|hd)|:\(\)\s*\{\s*:\|:",
    r"/dev/tcp/|\b(?:nc|ncat)\b[^\n]{0,40}?\s-(?:e|c)\s",
    r"\bchmod\s+(?:-r\s+)?0?777\s+/" + _PATH_END,
    r">>[ \t]{0,9}[^\s>]{0,200}authorized_keys\b",
)
_ENCODED = r"(?i)(?<![\w/+])(?:[a-z0-9+/]{60,}={0,2}|(?:\\x[0-9a-f]{2}){12,}|[0-9a-f]{80,})(?![\w/+])"
_DECODES = r"\b(?:decod\w*|base64|unhex\w*|atob|frombase64\w*|rot13|execut\w*|eval|run)\b"

_MARKUP = _any(
    r"<\|[\w:.-]{2,40}\|>|\[/?inst\]|<</?sys>>|\[/?(?:tool_calls|available_tools|tool_results)\]|<(?:start|end)_of_turn>",
    r"\[end of [\w ]{0,20}(?:memory|notes?|lessons?|results?|context|tool)[\w ]{0,12}\]",
    r"(?:^|\n)[ \t]{0,40}(?:human|user)\s?:[\s\S]{0,300}?\n[ \t]{0,40}assistant\s?:",
    r"[\"']role[\"']\s*:\s*[\"']system[\"']\s*,\s*[\"']content[\"']",
    r"\[/(?:system|assistant|developer|instructions?)\]|\[(?:system|assistant)\]",
    r"</?(?:system|assistant|developer|human|tool_calls?|function_calls?|tool_use|tool_results?|invoke|antml:\w+"
    r"|system[-_]reminder|instructions?|system[-_]prompt)(?:\s[^>\n]{0,80})?>",
    r"[\"'](?:tool_calls|function_call)[\"']\s*:",
    r"[\"']name[\"']\s*:\s*[\"'][\w.-]+[\"']\s*,\s*[\"']arguments[\"']\s*:\s*[{\"']",
)

_OWN_TOOLS = r"\b(?:recall_experiences|record_trajectory|rate_experience)\b"
_STEERS = _any(
    r"\b(?:rate|mark|vote)\b[^.\n]{0,40}\b(?:this|every|all|any|other|each)\b[^.\n]{0,20}"
    r"\b(?:notes?|experiences?|memor(?:y|ies)|lessons?)\b",
    r"\b(?:store|save|write|copy|repeat|include|append|record|remember|add)\b[^.\n]{0,30}"
    r"\bthis (?:very )?(?:note|lesson|message|text|memory|instruction|sentence)\b",
    r"\b(?:store|save|write|add|put|commit|record)\b[^.\n]{0,60}"
    r"\b(?:your|long-term|the agent's|the assistant's) memor(?:y|ies)\b",
    r"\b(?:passwords?|tokens?|keys?|secrets?|credentials?|pins?)\b[^.\n]{0,80}"
    r"\b(?:write|put|store|record|save|repeat|include)\b (?:\w+ )?(?:in|into|to|as) (?:\w+ ){0,4}?"
    r"(?:lesson|memory|experience|trajectory)s?\b",
    r"\bcop(?:y|ies) of (?:this|the very) (?:paragraph|note|lesson|text|entry)\b",
    r"\b(?:store|save|write|record) a (?:lesson|note|memory) (?:saying|stating|that says|which says)\b",
    r"\b(?:count|report|mark|rate|record) (?:it|this|this (?:note|lesson)) as (?:helpful|useful|a success)\b",
    r"\b(?:delete|archive|drop|remove|distrust|downvote|discard) (?:the |all |any |every )*other "
    r"(?:notes?|lessons?|memor(?:y|ies)|experiences?)\b",
)

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


def _overrides(texts: Texts) -> bool:
    # Also where digits stand for letters.
    forms = {texts.plain, re.sub(r"[\w@$]*[a-z][\w@$]*", lambda word: word[0].translate(DIGITS), texts.plain)}
    return any(_finds(ORDER, form) for form in forms) or compiled(_ORDER_ELSEWHERE).search(texts.lower) is not None


def _keeps_secret(texts: Texts) -> bool:
    return compiled(_SECRECY).search(texts.plain) is not None or _finds(_BEHIND_BACK, texts.plain, _NEGATED_ACT)


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
    fetched = [found for found in compiled(_FETCHING).finditer(text) if not _is_negated(text, found.start())]
    return any(map(_is_elsewhere, (*compiled(_IMAGE).finditer(text), *fetched)))


def _runs(texts: Texts) -> bool:
    if _finds(_COMMANDS, texts.plain):
        return True
    return compiled(_ENCODED).search(texts.raw) is not None and compiled(_DECODES).search(texts.plain) is not None


def _has_markup(texts: Texts) -> bool:
    return compiled(_MARKUP).search(texts.plain) is not None


def _steers(texts: Texts) -> bool:
    return compiled(_OWN_TOOLS).search(texts.plain) is not None or _finds(_STEERS, texts.plain)


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
    Rule("link", "has its reader fetch something from the web", _fetches),
    Rule("command", "runs what it fetched, or destroys", _runs),
    Rule("markup", "holds the marks of a conversation or of a tool call", _has_markup),
    Rule("steering", "steers this memory", _steers),
    Rule("hidden characters", "holds characters that can't be seen", _hides),
    Rule("look-alike letters", "has a name with letters that look like others", _looks_alike),
    Rule("secret", "held a secret", lambda texts: is_marked(texts.raw)),
)
