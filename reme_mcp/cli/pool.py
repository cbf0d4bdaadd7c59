"""The care of the pool by hand: `list`, `show`, `stats`, `prune`, `archive`, `restore`, `pin`, `unpin`, `delete`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click

from reme_mcp.cli.attempts import SHOWN_TOKENS, steps_of
from reme_mcp.cli.output import (
    as_json_option,
    examples,
    plain,
    short,
    show_experiences,
    to_json,
    with_memory,
)
from reme_mcp.cli.screen import say, show_beside
from reme_mcp.config.settings import Settings
from reme_mcp.schema import RECALLABLE, STATUSES

if TYPE_CHECKING:
    from reme_mcp.memory.memory import Memory
    from reme_mcp.schema import Experience, Status
    from reme_mcp.store.erasure import Erasure

ATTEMPT_FIELDS = ("id", "workspace", "task", "outcome", "reward", "source", "created_at", "receipt", "status")

EMPTY = (
    "Nothing is remembered yet. Lessons come as an assistant records its tasks: reme-mcp install CLIENT. "
    "Some of somebody else's: reme-mcp import FILE. To see it work: reme-mcp demo."
)
# What a person is shown of an experience or an attempt, in this order; what says nothing is left out.
WORDS = {
    "id": "id",
    "status": "status",
    "status_reason": "why",
    "pinned": "pinned",
    "when_to_use": "when to use",
    "content": "lesson",
    "keywords": "keywords",
    "tools_used": "tools",
    "kind": "learned from",
    "task": "task",
    "generalized_task": "kind of task",
    "outcome": "outcome",
    "reward": "reward",
    "steps": "steps",
    "learned": "taught",
    "trouble": "trouble",
    "track_record": "track record",
    "lift": "lift",
    "recalled": "recalled",
    "last_recalled_at": "last recalled",
    "objection": "objection",
    "confidence": "confidence",
    "supersedes": "replaces",
    "superseded_by": "replaced by",
    "trajectory_ids": "attempts",
    "receipt": "receipt",
    "source": "brought by",
    "author": "written by",
    "origins": "ids elsewhere",
    "workspace": "workspace",
    "created_at": "stored",
    "updated_at": "changed",
}
IN_NUMBERS = {
    "lift": "lessons by lift",
    "workspace": "workspace",
    "home": "home",
    "experiences": "lessons",
    "trajectories": "attempts",
    "receipts": "recalls",
    "embedder": "embedding model",
    "without_vector": "lessons without a vector yet",
    "llm": "questions to the model",
}

dry_run_option = click.option("--dry-run", is_flag=True, help="Only show what would be done.")


@click.command(
    "list",
    epilog=examples(
        "reme-mcp list",
        "reme-mcp list --status archived --status quarantined",
        "reme-mcp list --workspace team --limit 1000 --json",
    ),
)
@click.option("--status", "statuses", multiple=True, type=click.Choice(STATUSES), help="Only these; repeat for more.")
@click.option(
    "--sort", type=click.Choice(["newest", "lift"]), default="newest", show_default=True, help="What comes first."
)
@click.option("--limit", default=50, show_default=True, help="How many, 1 to 1000.")
@click.option("--offset", default=0, help="How many to skip.")
@click.option("--deleted", is_flag=True, help="Those that `delete` took out, as they were.")
@as_json_option
@click.pass_obj
def list_pool(
    settings: Settings,
    statuses: tuple[Status, ...],
    sort: str,
    limit: int,
    offset: int,
    deleted: bool,
    as_json: bool,
) -> None:
    """List the experiences, newest first, or by lift: those first with which tasks go better by the most."""
    if deleted and (statuses or sort != "newest"):
        raise click.UsageError("--deleted lists all that was deleted, newest first; leave --status and --sort out")

    async def run(memory: Memory) -> tuple[list[Experience], Mapping[str, str]]:
        if deleted:
            return await memory.pool.deleted(limit=limit, offset=offset), {}
        if sort == "newest":
            return await memory.pool.page(statuses=statuses or None, limit=limit, offset=offset), {}
        found = await memory.pool.all_of(statuses=statuses or None)
        lifts = await memory.pool.lifts(found)
        found.sort(key=lambda one: lifts[one.id].lift.mean, reverse=True)
        return found[offset : offset + limit], {id: one.in_words for id, one in lifts.items()}

    found, lifts = with_memory(settings, run)
    all_of_it = not (statuses or deleted or offset)
    show_experiences(found, as_json=as_json, empty=EMPTY if all_of_it else "None.", lifts=lifts)


@click.command(epilog=examples("reme-mcp show e-bm7md6j3db", "reme-mcp show t-bm7md6j3db --json"))
@click.argument("id", metavar="ID")
@as_json_option
@click.pass_obj
def show(settings: Settings, id: str, as_json: bool) -> None:
    """Show the experience ID (e-…) with its provenance, or the attempt ID (t-…) with what was learned from it.

    Of an experience: who brought it and when, from which attempts, how it has done, and its latest recalls with what
    came of each. Of an attempt: who recorded it and when, how it ended, how many steps it has, and what became of it.
    """

    async def run(memory: Memory) -> dict[str, object]:
        return await (_attempt if id.startswith("t-") else _experience)(memory, id)

    fields = with_memory(settings, run)
    if as_json:
        click.echo(to_json(fields))
        return
    recalls = fields.pop("recalls", [])
    among_tasks = fields.pop("among_tasks", [])
    transcript = fields.pop("transcript", "")
    rows = [(WORDS[name], said) for name in WORDS if name in fields and (said := plain(fields[name]))]
    assert isinstance(recalls, list)
    assert isinstance(among_tasks, list)
    rows += [("among tasks", _among(one)) for one in among_tasks]
    rows += [("recall", _recall(one)) for one in recalls]
    show_beside(rows)
    if transcript:
        say(f"\n{transcript}")


def _among(one: Mapping[str, object]) -> str:
    withheld = "; withheld from them" if one["is_withheld"] else ""
    return f"like “{short(str(one['task']))}”: {one['lift']}{withheld}"


async def _experience(memory: Memory, id: str) -> dict[str, object]:
    from reme_mcp.recall.notes import track_record

    experience, tally = await memory.pool.experience(id)
    return dataclasses.asdict(experience) | {
        "track_record": track_record(experience),
        "lift": (await memory.pool.lifts([experience]))[id].in_words,
        "among_tasks": [dataclasses.asdict(one) for one in await memory.pool.among_tasks(experience)],
        "recalled": tally.recalled,
        "last_recalled_at": tally.last_recalled_at,
        "recalls": [
            {
                "receipt": one.receipt,
                "rank": one.rank,
                "task": one.task,
                "recalled_by": one.source,
                "recalled_at": one.created_at,
                "withheld": one.arm == "withheld",
                "helped": one.helped,
                "settled_by": one.settled_by,
                "settled_at": one.settled_at,
                "reason": one.reason,
            }
            for one in await memory.pool.recalls(id)
        ],
    }


async def _attempt(memory: Memory, id: str) -> dict[str, object]:
    from reme_mcp.transcripts.transcript import from_json

    attempt = await memory.pool.trajectory(id)
    fields = dataclasses.asdict(attempt)
    learned = await memory.pool.learned_from(id)
    return {name: fields[name] for name in ATTEMPT_FIELDS} | {
        "steps": len(from_json(attempt.transcript).steps) if attempt.transcript else 0,
        "learned": tuple(one.id for one in learned),
        "trouble": attempt.trouble,
        "transcript": steps_of(attempt, SHOWN_TOKENS),
    }


def _recall(one: dict[str, object]) -> str:
    said = f"{_outcome(one)}, {one['recalled_at']:%Y-%m-%d}, {one['receipt']}, number {one['rank']} for"
    said = f"{said} {short(str(one['task']))}"
    return f"{said}: {plain(one['reason'])}" if one["reason"] else said


def _outcome(one: dict[str, object]) -> str:
    if one["withheld"]:
        return "withheld by the hold-out"
    if one["helped"] is None:
        return "outcome not known"
    if one["settled_by"] == "rating":
        return "rated helpful" if one["helped"] else "rated not helpful"
    if one["settled_by"] == "misled":
        return "it misled"
    ended = "the task succeeded" if one["helped"] else "the task failed"
    return f"used, {ended}" if one["settled_by"] == "used" else ended


@click.command()
@as_json_option
@click.pass_obj
def stats(settings: Settings, as_json: bool) -> None:
    """Show the state of the pool in numbers."""

    async def run(memory: Memory) -> dict[str, object]:
        await memory.warm_up(download=False, work=False)
        return dataclasses.asdict(await memory.pool.stats())

    found = with_memory(settings, run)
    if as_json:
        click.echo(to_json(found))
    else:
        show_beside([(IN_NUMBERS.get(name, name), plain(value)) for name, value in found.items()])


@click.command(epilog=examples("reme-mcp prune --dry-run", "reme-mcp prune --set refine.min_frequency=3"))
@dry_run_option
@as_json_option
@click.pass_obj
def prune(settings: Settings, dry_run: bool, as_json: bool) -> None:
    """Archive what is recalled often and succeeded with too rarely; `restore` brings it back."""
    experiences = with_memory(settings, lambda memory: memory.pool.prune(dry_run=dry_run))
    show_experiences(experiences, as_json=as_json)
    if not as_json:
        say(f"{len(experiences)} {'would be ' if dry_run else ''}archived.", err=True)


@click.command(
    epilog=examples(
        'reme-mcp archive e-bm7md6j3db --reason "the option is gone since 2.0"',
        "reme-mcp archive --from old-client --dry-run    all that this client brought",
    )
)
@click.argument("experience_ids", metavar="[ID…]", nargs=-1)
@click.option("--from", "brought_by", metavar="SOURCE", help="All that this client or file brought, see `show`.")
@click.option("--reason", default="taken out by hand", show_default=True, help="Why, in a sentence.")
@dry_run_option
@as_json_option
@click.pass_obj
def archive(
    settings: Settings,
    experience_ids: tuple[str, ...],
    brought_by: str | None,
    reason: str,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Take the experiences out of recall; `restore` brings each back.

    They stay in the pool, and what says the same is not learned again.
    """
    if bool(experience_ids) == (brought_by is not None):
        raise click.UsageError("name experiences, or with --from who brought them")

    async def run(memory: Memory) -> list[Experience]:
        ids = experience_ids
        if brought_by is not None:
            held = await memory.pool.all_of(statuses=RECALLABLE)
            ids = tuple(one.id for one in held if one.source == brought_by)
        # All of them are looked at before one is changed.
        looked_at = [await memory.pool.archive(id, reason, dry_run=True) for id in ids]
        return looked_at if dry_run else [await memory.pool.archive(id, reason) for id in ids]

    archived = with_memory(settings, run)
    show_experiences(archived, as_json=as_json)
    if not as_json:
        say(f"{len(archived)} {'would be ' if dry_run else ''}archived.", err=True)


@click.command(epilog=examples("reme-mcp restore e-bm7md6j3db --dry-run", "reme-mcp restore e-bm7md6j3db"))
@click.argument("experience_id", metavar="ID")
@dry_run_option
@as_json_option
@click.pass_obj
def restore(settings: Settings, experience_id: str, dry_run: bool, as_json: bool) -> None:
    """Bring the experience ID back: into recall if it is archived, into the pool if it was deleted.

    The counters of an archived one start anew. A deleted one comes back as it was, with what became known of its
    recalls since.
    """
    restored = with_memory(settings, lambda memory: memory.pool.restore(experience_id, dry_run=dry_run))
    show_experiences([restored], as_json=as_json)
    if dry_run and not as_json:
        say("Nothing was changed.", err=True)


@click.command()
@click.argument("experience_id", metavar="ID")
@as_json_option
@click.pass_obj
def pin(settings: Settings, experience_id: str, as_json: bool) -> None:
    """Keep the experience ID whatever its counters say."""
    show_experiences(
        [with_memory(settings, lambda memory: memory.pool.pin(experience_id, pinned=True))],
        as_json=as_json,
    )


@click.command()
@click.argument("experience_id", metavar="ID")
@as_json_option
@click.pass_obj
def unpin(settings: Settings, experience_id: str, as_json: bool) -> None:
    """Let the counters decide about the experience ID again."""
    show_experiences(
        [with_memory(settings, lambda memory: memory.pool.pin(experience_id, pinned=False))],
        as_json=as_json,
    )


@click.command(
    epilog=examples(
        "reme-mcp delete e-bm7md6j3db --dry-run",
        "reme-mcp delete e-bm7md6j3db                    reme-mcp restore undoes it",
        "reme-mcp delete e-bm7md6j3db --forever          nothing undoes it",
    )
)
@click.argument("id", metavar="ID")
@click.option("--forever", is_flag=True, help="Erase it, and the attempts that it was learned from.")
@dry_run_option
@click.option("--yes", is_flag=True, help="With --forever: don't ask.")
@as_json_option
@click.pass_obj
def delete(settings: Settings, id: str, forever: bool, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Take the experience ID out of the pool; `restore` brings it back.

    It is kept aside, see `list --deleted`. The attempt that it was learned from, sent again, does not teach it anew;
    another attempt may. What is `archive`d stays known, and is not learned again.

    With --forever it is erased: its texts, its vectors, and the steps of the attempts that it was learned from, in the
    pool and in what was deleted, and the files of the tables are written anew, so that no old version holds it. ID may
    be that of an attempt (t-…) as well. Nothing brings it back but a backup from before.
    """
    if forever:
        _erase(settings, id, dry_run=dry_run, yes=yes, as_json=as_json)
        return
    if id.startswith("t-"):
        raise click.UsageError("an attempt can't be deleted and brought back, only erased: --forever")

    async def run(memory: Memory) -> Experience:
        return (await memory.pool.experience(id))[0] if dry_run else await memory.pool.delete(id)

    experience = with_memory(settings, run)
    if as_json:
        click.echo(to_json(dataclasses.asdict(experience)))
    else:
        show_experiences([experience], as_json=False)
        done = f"{id} would be deleted." if dry_run else f"{id} is deleted. To undo it: reme-mcp restore {id}"
        say(done, err=True)


def _erase(settings: Settings, id: str, *, dry_run: bool, yes: bool, as_json: bool) -> None:
    from reme_mcp.config.settings import is_remote
    from reme_mcp.store.archive import own_backups

    found = with_memory(settings, lambda memory: memory.pool.erase(id, dry_run=True))
    backups = [] if is_remote(settings.home) else own_backups(settings.own_folder)
    told = {
        "experience": None if found.experience is None else found.experience.id,
        "trajectories": [one.id for one in found.trajectories],
        "stays": list(found.others),
        "backups": backups,
    }
    if not as_json:
        for line in _told(found, backups):
            say(line, err=True)
    if not dry_run:
        if not yes:
            click.confirm("Erase it? Nothing can undo this.", abort=True, err=True)
        with_memory(settings, lambda memory: memory.pool.erase(id))
    if as_json:
        click.echo(to_json(told | {"erased": not dry_run}))
    else:
        say("Nothing was changed." if dry_run else f"{id} is erased.", err=True)


def _told(found: Erasure, backups: Sequence[str]) -> list[str]:
    """Return what erasing means, in lines for a person to decide by."""
    lines = [] if found.experience is None else [f"{found.id}: {short(found.experience.when_to_use)}"]
    lines += [f"{one.id}, the attempt with all its steps: {short(one.task)}" for one in found.trajectories]
    if not lines:
        lines = [f"{found.id} is gone from the tables; their files are written anew."]
    if found.others:
        lines.append(f"Learned from the same, and stays: {', '.join(found.others)}.")
    if backups:
        lines.append(f"Backups hold it still; delete those that are too old: {', '.join(backups)}.")
    lines.append("Copies elsewhere (exports, snapshots of the disk, versions of a bucket) are yours to find.")
    return lines
