"""Experiences in files: `import` takes them in, `export` writes them out, as JSON lines, as Markdown or as skills."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from reme_mcp.cli.kinds import wrong_kind
from reme_mcp.cli.output import as_json_option, examples, to_json, with_memory, write_files
from reme_mcp.cli.screen import say, show_below, show_beside, show_errors
from reme_mcp.config.settings import Settings
from reme_mcp.schema import KINDS, STATUSES
from reme_mcp.text.plural import many

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from reme_mcp.import_export.importer import Imported
    from reme_mcp.import_export.markdown import Page
    from reme_mcp.memory.memory import Memory
    from reme_mcp.schema import Experience, Kind, Status

# What the tables of a pool hold, in words.
HOLDS = {
    "experiences": "lessons",
    "trajectories": "attempts",
    "receipts": "recalls",
    "trash": "deleted lessons",
    "costs": "questions to the model",
    "counters": "counted lessons",
    "log": "entries of the log",
}
# Fewer records are read before a bar is seen.
BAR_FROM = 200


@click.command(
    "import",
    epilog=examples(
        "reme-mcp import library.jsonl --dry-run",
        "reme-mcp import library.jsonl another.jsonl --workspace team",
        "reme-mcp import lessons/ --dry-run --check    in CI: lessons as Markdown, in a pull request",
    ),
)
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(allow_dash=True, path_type=Path), metavar="FILE|DIR..."
)
@click.option("--dry-run", is_flag=True, help="Only count what would come in.")
@click.option("--check", is_flag=True, help="With --dry-run: exit status 1 if anything would be held back, too.")
@click.option(
    "--kind",
    type=click.Choice(KINDS),
    default="success",
    show_default=True,
    help="Of records that don't say theirs, as in ReMe's first libraries.",
)
@click.option("--embed", is_flag=True, help="Embed at once, and compare by meaning, too; this takes its time.")
@as_json_option
@click.pass_obj
def import_files(
    settings: Settings, files: tuple[Path, ...], dry_run: bool, check: bool, kind: Kind, embed: bool, as_json: bool
) -> None:
    """Take the experiences in FILE… (`-` is stdin), or the lessons in DIR, into the workspace.

    FILE is what `export` wrote, or a library, dump or vector store of ReMe, of any version up to 0.3: JSON Lines or one
    JSON array. What the pool knows already is merged, so importing a file again changes nothing. A bad record is
    reported with its place and the reason, and the others come in all the same. Without --embed, vectors follow in the
    background when a server runs.

    DIR is what `export --markdown` wrote: what a person changed there is changed in the pool, whose older wording is
    kept; a page without a line id is a new lesson. Counters are never taken from a page, and one that was written
    before the pool's own text changed is refused.
    """
    if check and not dry_run:
        raise click.UsageError("--check goes with --dry-run")
    from rich.console import Console
    from rich.progress import Progress

    unread: list[str] = []

    async def run(memory: Memory) -> list[Imported]:
        if embed:
            await memory.warm_up(download=True, work=False)
        done: list[Imported] = []
        with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
            for file in files:
                name = "stdin" if str(file) == "-" else file.resolve().name
                try:
                    data = sys.stdin.buffer.read() if name == "stdin" else _pages(file) or file.read_bytes()
                except OSError as exc:
                    unread.append(f"{file}: can't be read: {exc.strerror}")
                    continue
                tell = partial(_show, progress, progress.add_task(name, total=None, visible=False))
                if isinstance(data, bytes):
                    if kind_of_file := wrong_kind(data, right="lessons"):
                        unread.append(f"{file}: {kind_of_file.replace('FILE', str(file))}")
                        continue
                    done.append(await memory.pool.import_file(name, data, kind=kind, dry_run=dry_run, tell=tell))
                else:
                    done.append(await memory.pool.import_pages(name, data, dry_run=dry_run, tell=tell))
        return done

    imported = with_memory(settings, run)
    if as_json:
        click.echo(to_json([dataclasses.asdict(one) for one in imported]))
    else:
        show_below([(one.file, _counted(one)) for one in imported])
        show_errors([(f"{one.file} {bad.where}", bad.reason) for one in imported for bad in one.rejected])
    if dry_run:
        say("Nothing was changed.", err=True)
    for line in unread:
        say(line, err=True)
    if unread or any(one.rejected or (check and one.quarantined) for one in imported):
        sys.exit(1)


def _counted(done: Imported) -> str:
    """Return what became of the records of a file, in words."""
    counts = {
        "added": done.added - done.quarantined,
        "edited": done.edited,
        "held back for review": done.quarantined,
        "merged with what says the same": done.merged,
        "known already": done.known,
        "refused": len(done.rejected),
    }
    return ", ".join([f"{done.read:,} read", *(f"{count:,} {what}" for what, count in counts.items() if count > 0)])


def _pages(path: Path) -> list[Page]:
    """Return the pages of a folder, or the one that a file is; none for a file of another kind."""
    from reme_mcp.import_export.markdown import ENDING, Page

    files = sorted(path.glob(f"*{ENDING}")) if path.is_dir() else [path] if path.suffix == ENDING else []
    if path.is_dir() and not files:
        raise OSError(0, f"it has no lessons as Markdown (*{ENDING})")
    try:
        return [Page(file.name, file.read_text(encoding="utf-8")) for file in files]
    except UnicodeDecodeError as exc:
        raise OSError(0, f"a page is not UTF-8 (byte {exc.start + 1}); save it as UTF-8") from exc


@click.command(
    "export",
    epilog=examples(
        "reme-mcp export pool.jsonl",
        "reme-mcp export --markdown lessons/                to read and edit, a file a lesson; `import` reads it back",
        "reme-mcp export --skills .claude/skills --by-task",
    ),
)
@click.argument("target", type=click.Path(allow_dash=True, path_type=Path), metavar="FILE|DIR")
@click.option("--markdown", is_flag=True, help="Write a page for each lesson into DIR, for people to read and edit.")
@click.option("--skills", is_flag=True, help="Write a folder with a SKILL.md for each experience into DIR.")
@click.option("--by-task", is_flag=True, help="With --skills: one for each generalized task.")
@click.option("--status", "statuses", multiple=True, type=click.Choice(STATUSES), help="Only these; repeat for more.")
@click.option("--force", is_flag=True, help="Replace what is there.")
@as_json_option
@click.pass_obj
def export(
    settings: Settings,
    target: Path,
    markdown: bool,
    skills: bool,
    by_task: bool,
    statuses: tuple[Status, ...],
    force: bool,
    as_json: bool,
) -> None:
    """Write the experiences of the workspace to FILE (`-` is stdout), a JSON object on each line.

    `import` brings back all of it: texts, counters, status, provenance, times; workspace and source are those of the
    import. Trajectories and receipts stay; for those, make a `backup`. With --markdown, what is active goes into
    DIR as a page for each lesson, which `import DIR` reads back with what a person has changed; names stay the same.
    With --skills it goes there as skills (agentskills.io), for agents that read skills and have no memory server.
    """
    if by_task and not skills:
        raise click.UsageError("--by-task goes with --skills")
    if markdown and skills:
        raise click.UsageError("--markdown or --skills, not both")
    if target.is_dir() and not (markdown or skills):
        raise click.UsageError(f"{target} is a folder: name a file in it, or say --markdown or --skills")
    _ask_for_folder(target if markdown or skills else target.parent)
    if (markdown or skills) and not statuses:
        statuses = ("active",)
    found = with_memory(settings, lambda memory: memory.pool.all_of(statuses=statuses or None))
    if markdown:
        written = _write_pages(target, found, force=force)
    elif skills:
        from reme_mcp.import_export.skills import one_each, one_per_task

        made = (one_per_task if by_task else one_each)(found)
        write_files([(target / skill.name / "SKILL.md", skill.text) for skill in made], force=force)
        written = len(made)
    else:
        from reme_mcp.import_export.jsonl import to_line

        text = "".join(f"{to_line(one)}\n" for one in found)
        written = len(found)
        if str(target) == "-":
            click.echo(text, nl=False)
            return
        write_files([(target, text)], force=force)
    if as_json:
        click.echo(to_json({"target": str(target), "written": written}))
    else:
        what = "lesson" if markdown else "skill" if skills else "experience"
        say(f"{many(written, what)} in {target}.", err=True)


def _ask_for_folder(folder: Path) -> None:
    """Ask whether a folder that is not there is meant, where somebody can answer; a script means what it says."""
    if not folder.exists() and sys.stdin.isatty():
        click.confirm(f"The folder {folder} is not there. Make it?", abort=True, default=True, err=True)


def _write_pages(folder: Path, found: Sequence[Experience], *, force: bool) -> int:
    """Write a page for each experience, and tell of pages whose lessons are not among them."""
    from reme_mcp.import_export.markdown import ENDING, id_in, to_pages

    there = {id: file.name for file in sorted(folder.glob(f"*{ENDING}")) if (id := id_in(file.name))}
    pages = to_pages(found, named=there)
    changed = [page for page in pages if not _holds(folder / page.name, page.text)]
    write_files([(folder / page.name, page.text) for page in changed], force=force)
    for name in sorted(set(there.values()) - {page.name for page in pages}):
        say(f"{folder / name} is of a lesson that was not written now; it stays.", err=True)
    return len(pages)


def _holds(path: Path, text: str) -> bool:
    return path.is_file() and path.read_bytes() == text.encode()


def _show(progress: Progress, bar: TaskID, more: int, of: int) -> None:
    progress.update(bar, advance=more, total=of, visible=of > BAR_FROM)


@click.command(
    "backup", epilog=examples("reme-mcp backup", "reme-mcp backup /mnt/usb", "reme-mcp backup before-the-move.zip")
)
@click.argument("target", required=False, metavar="[FILE|DIR]")
@as_json_option
@click.pass_obj
def make_backup(settings: Settings, target: str | None, as_json: bool) -> None:
    """Copy the pool, all its workspaces, into one file; clients may go on working.

    FILE must be new and have an ending. A name without one is that of a DIR, which is made where it is missing; in it
    the file is named after the time. Without either it goes into the `backups` folder of the home, which helps against
    mistakes, but not against the loss of the disk. The copy is read back before it is named.
    """
    if target is not None and target.endswith(("/", os.sep)):
        try:
            Path(target).mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as exc:
            raise click.ClickException(f"can't make the folder {target}: {exc.strerror}") from exc
    made = with_memory(settings, lambda memory: memory.pool.backup(None if target is None else Path(target)))
    if as_json:
        click.echo(to_json(dataclasses.asdict(made)))
        return
    show_beside([("file", str(made.file)), ("bytes", f"{made.size:,}"), *_counts(made.tables)])


@click.command(
    "restore-backup",
    epilog=examples(
        "reme-mcp restore-backup /mnt/usb/pool.zip --dry-run", "reme-mcp restore-backup pool-20261123T063100Z --force"
    ),
)
@click.argument("what", metavar="WHAT")
@click.option("--force", is_flag=True, help="Replace a pool that holds something; a backup of it is kept.")
@click.option("--dry-run", is_flag=True, help="Only show what would be replaced by what.")
@as_json_option
@click.pass_obj
def restore_backup(settings: Settings, what: str, force: bool, dry_run: bool, as_json: bool) -> None:
    """Put the backup WHAT, a file or its name in the home's `backups`, in the place of the pool.

    Where the home is damaged, WHAT may also be a folder in it that holds tables: they are taken as they are.

    Running clients go on with it at their next call.
    """
    done = with_memory(settings, lambda memory: memory.pool.restore_backup(what, force=force, dry_run=dry_run))
    if as_json:
        click.echo(to_json(dataclasses.asdict(done)))
        return
    replaced = [("can't be read", "")] if done.replaced is None else _counts(done.replaced)
    rows = [
        ("file", str(done.file)),
        *_counts(done.tables),
        *((f"replaced: {name}", count) for name, count in replaced),
    ]
    show_beside(rows)
    if done.undo is not None:
        say(f"To undo it: reme-mcp restore-backup --force {done.undo.name}", err=True)
    elif dry_run:
        say("Nothing was changed.", err=True)


def _counts(tables: Mapping[str, int]) -> list[tuple[str, str]]:
    return [(HOLDS.get(name, name), f"{count:,}") for name, count in tables.items()]
