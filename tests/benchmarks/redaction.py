"""How much of what is secret is cut out, how much else, and how long it takes.

Precision: of what was cut, how much was a secret. Recall: of the secrets, how many were cut. On the list of
`tests/redaction_cases.py`. With `--compare`, detect-secrets is measured on it, too, where it is installed: all its
detectors but those that take any random string for a secret, on each line, as it works on lines.

    python -m tests.benchmarks.redaction [--compare] [--text FILE …] [--json FILE]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from reme_mcp.safety.redaction import redactor
from reme_mcp.safety.secret_rules import MARK_START
from tests.benchmarks.report import parser as report_parser
from tests.benchmarks.report import show, write
from tests.redaction_cases import INNOCENTS, SECRETS

# As much as a long session has.
TEXT_CHARS = 200_000
ROUNDS = 5
COLUMNS = ("rules", "secrets", "found", "recall", "innocents", "wrongly cut", "precision", "ms for 200,000 chars")

# Says whether it finds a secret in a text.
Finds = Callable[[str, str], bool]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = report_parser(__doc__)
    parser.add_argument("--compare", action="store_true", help="measure detect-secrets as well")
    parser.add_argument("--text", type=Path, nargs="*", default=[], metavar="FILE", help="count what is cut in these")
    chosen = parser.parse_args(arguments)
    redact = redactor()
    rules = {"reme-mcp": measure(lambda text, secret: secret not in redact(text), lambda text: redact(text) != text)}
    if chosen.compare:
        finds = detect_secrets()
        rules["detect-secrets"] = measure(lambda text, secret: finds(text), finds)
    show("Secrets in made-up texts", COLUMNS, [row(name, figures) for name, figures in rules.items()])
    figures: dict[str, object] = {"rules": rules}
    if chosen.text:
        figures["texts"] = texts = count(chosen.text, redact)
        show("Cut in other texts", ("what", "figure"), [(name, f"{value:,}") for name, value in texts.items()])
    write(chosen.json, figures)
    return 0


def measure(is_cut: Finds, changes: Callable[[str], bool]) -> dict[str, float]:
    """Return the figures of one set of rules."""
    found = sum(is_cut(secret.whole, secret.secret) for secret in SECRETS)
    wrong = sum(changes(text) for text in INNOCENTS)
    text = "\n".join(INNOCENTS * (TEXT_CHARS // sum(map(len, INNOCENTS)) + 1))[:TEXT_CHARS]
    times = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        changes(text)
        times.append(time.perf_counter() - begun)
    return {
        "secrets": len(SECRETS),
        "found": found,
        "recall": round(found / len(SECRETS), 3),
        "innocents": len(INNOCENTS),
        "wrongly_cut": wrong,
        "precision": round(found / (found + wrong), 3) if found else 0.0,
        "ms": round(min(times) * 1000, 1),
    }


def row(name: str, figures: dict[str, float]) -> tuple[str, ...]:
    names = ("secrets", "found", "recall", "innocents", "wrongly_cut", "precision", "ms")
    return (name, *(f"{figures[column]:g}" for column in names))


def count(files: Sequence[Path], redact: Callable[[str], str]) -> dict[str, int]:
    """Return how much is cut in files that are thought to hold no secrets."""
    texts = [file.read_text(encoding="utf-8", errors="replace") for file in files if file.is_file()]
    return {
        "files": len(texts),
        "characters": sum(map(len, texts)),
        "cuts": sum(redact(text).count(MARK_START) - text.count(MARK_START) for text in texts),
    }


def detect_secrets() -> Callable[[str], bool]:
    """Return whether detect-secrets finds anything in a text, with every detector but those of entropy."""
    from detect_secrets.core.scan import scan_line  # type: ignore[import-not-found]  # installed by who compares
    from detect_secrets.settings import default_settings  # type: ignore[import-not-found]  # likewise

    def finds(text: str) -> bool:
        with default_settings() as settings:
            settings.disable_plugins("Base64HighEntropyString", "HexHighEntropyString", "IPPublicDetector")
            settings.disable_filters("detect_secrets.filters.common.is_ignored_due_to_verification_policies")
            return len([found for line in text.split("\n") for found in scan_line(line)]) > 0

    return finds


if __name__ == "__main__":
    sys.exit(main())
