"""Whether a lesson that is told anew is known again, and one with a decisive difference is not taken for the same.

    python -m tests.benchmarks.pairs [--models DIR] [--half A|B] [--pairs FILE] [--json FILE]

Read: labelled pairs, one a line: `half`, `language`, `verdict` (`same` or `differs`), `difference` (its kind), `older`
and `newer`, each a scenario and a lesson. They were written for this benchmark; the rules were tuned on half A. Every
pair goes through `dedup.find_twin`, by words, and with --models, a cache of fastembed's, with its vectors as well.

To read: `false merges` are pairs that differ and were taken for the same, which loses a lesson; `missed` are pairs that
say the same and were kept apart, which costs a row; `corrected` are pairs that differ and of which the newer takes the
place of the older.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import anyio

from reme_mcp.config.settings import EmbedderSettings
from reme_mcp.distill import dedup
from reme_mcp.models.embedder import load_embedder
from reme_mcp.models.service import Vectors
from reme_mcp.schema import Experience
from tests.benchmarks import report

PAIRS = Path(__file__).with_name("pairs.jsonl")
AT = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two lessons, and whether the newer one says the same."""

    half: Literal["A", "B"]
    language: str
    verdict: Literal["same", "differs"]
    difference: str
    older: tuple[str, str]
    newer: tuple[str, str]


@dataclass(frozen=True, slots=True)
class Judged:
    """What became of a pair: `merged`, `corrected`, or `apart`."""

    pair: Pair
    became: Literal["merged", "corrected", "apart"]
    how: str

    def is_wrong(self) -> bool:
        """Return whether it is a false merge, or a miss."""
        return (self.became == "merged") != (self.pair.verdict == "same")


def read(file: Path) -> list[Pair]:
    """Return the pairs of a file."""
    rows: list[dict[str, Any]] = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return [Pair(**{**row, "older": tuple(row["older"]), "newer": tuple(row["newer"])}) for row in rows]


async def judge(pairs: Sequence[Pair], vectors: Vectors) -> list[Judged]:
    """Return what becomes of each pair."""
    judged = []
    for pair in pairs:
        older, newer = _experience("e-older", pair.older), _experience("e-newer", pair.newer)
        readable = all(vectors.reads(" ".join(texts)) for texts in (pair.older, pair.newer))
        embedded = await vectors.embed_experiences([older, newer]) if readable else None
        cosines = {} if embedded is None else {older.id: float(embedded.lessons[0] @ embedded.lessons[1])}
        synonyms = await vectors.synonyms(dedup.pairs_to_compare(newer, older))
        twin = dedup.find_twin(newer, [older], cosines, synonyms=synonyms)
        if twin is None:
            judged.append(Judged(pair, "apart", ""))
        else:
            judged.append(Judged(pair, "corrected" if twin.corrects else "merged", twin.how))
    return judged


def summary(judged: Sequence[Judged], half: str) -> dict[str, int]:
    """Return the figures of one half."""
    same = [one for one in judged if (one.pair.half, one.pair.verdict) == (half, "same")]
    differ = [one for one in judged if (one.pair.half, one.pair.verdict) == (half, "differs")]
    return {
        "differ": len(differ),
        "false merges": sum(one.is_wrong() for one in differ),
        "corrected": sum(one.became == "corrected" for one in differ),
        "same": len(same),
        "missed": sum(one.is_wrong() for one in same),
    }


def _experience(id: str, texts: tuple[str, str]) -> Experience:
    """Return an experience with this scenario and lesson, and nothing else that a comparison could go by."""
    when_to_use, content = texts
    return Experience(
        id=id, workspace="default", when_to_use=when_to_use, content=content, keywords=(), confidence=0.5,
        tools_used=(), kind="success", task="", generalized_task="", frequency=0, utility=0, prior_frequency=0,
        prior_utility=0, source="benchmark", author="benchmark", trajectory_ids=(), created_at=AT, updated_at=AT,
        counted_since=AT, status="active", status_reason="", pinned=False,
    )  # fmt: skip


async def _judge_all(pairs: Sequence[Pair], models: Path | None) -> dict[str, list[Judged]]:
    settings = {"words": EmbedderSettings(provider="none")}
    if models is not None:
        settings["bge"] = EmbedderSettings(cache_dir=str(models), download=False)
    judged = {}
    for name, embedder in settings.items():
        vectors = Vectors(embedder, load_embedder)
        await vectors.load(download=False)
        if name != "words" and vectors.space is None:
            raise SystemExit(vectors.state)
        judged[name] = await judge(pairs, vectors)
    return judged


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = report.parser(__doc__)
    parser.add_argument("--models", type=Path, metavar="DIR", help="fastembed's cache folder; without it only words")
    parser.add_argument("--half", choices=("A", "B"), help="only this half, with every pair that went wrong")
    parser.add_argument("--pairs", type=Path, metavar="FILE", default=PAIRS, help="others in the same format")
    given = parser.parse_args(arguments)
    judged = anyio.run(_judge_all, read(given.pairs), given.models)
    halves = [given.half] if given.half else ["A", "B"]
    figures = {f"{name}, half {half}": summary(of_name, half) for name, of_name in judged.items() for half in halves}
    columns = ["", *next(iter(figures.values()))]
    report.show("Pairs", columns, [[name, *map(str, values.values())] for name, values in figures.items()])
    if given.half:
        wrong = [
            [f"{name}: {one.pair.verdict}", one.became, " / ".join(one.pair.older), " / ".join(one.pair.newer)]
            for name, of_name in judged.items()
            for one in of_name
            if one.pair.half == given.half and one.is_wrong()
        ]
        report.show("Wrong", ["", "became", "older", "newer"], wrong)
    pairs = {name: [asdict(one) for one in of_name] for name, of_name in judged.items()}
    report.write(given.json, {"figures": figures, "pairs": pairs})


if __name__ == "__main__":
    main()
