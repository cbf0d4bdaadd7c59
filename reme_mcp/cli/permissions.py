"""Files with a secret, and the home, that other users of this machine can read.

In:  settings, and the file that they came from.
Out: what is exposed, with the command that closes it. Nothing is changed.
Does not know: terminals. Windows, whose files have no such modes, exposes nothing here.

The home is made private (0700), which keeps others from all that is in it, LanceDB's files too. A folder that somebody
else owns, as a volume is that was mounted for a group, is left to its group.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from reme_mcp.config.load import secrets_in
from reme_mcp.config.settings import Settings, is_remote

READABLE = stat.S_IRGRP | stat.S_IROTH


@dataclass(frozen=True, slots=True)
class Exposed:
    """One of them.

    Attributes:
        path: Of the file or folder.
        why: What it holds.
        do: The command that closes it.
    """

    path: Path
    why: str
    do: str


def exposed(settings: Settings, settings_file: Path) -> list[Exposed]:
    """Return what others can read and should not."""
    if os.name == "nt":
        return []
    found = []
    if _has(settings_file, READABLE) and (keys := secrets_in(settings_file)):
        found.append(Exposed(settings_file, f"holds {', '.join(keys)}", f"chmod 600 {quote(str(settings_file))}"))
    tokens = settings.auth.tokens_file or str(settings.own_folder / "tokens.json")
    # What stands in a closed folder can't be read by others whatever its own mode.
    for file, why in ((settings.llm.api_key_file, "holds the key of the model"), (tokens, "holds tokens, as hashes")):
        if file and _has(Path(file), READABLE) and _has(Path(file).parent, stat.S_IXGRP | stat.S_IXOTH):
            found.append(Exposed(Path(file), why, f"chmod 600 {quote(file)}"))
    home = Path(settings.home)
    if not is_remote(settings.home) and os.path.exists(home / "home.json") and _has(home, _closed_to(home)):
        found.append(Exposed(home, "is the home", f"chmod {'700' if _is_own(home) else 'o-rwx'} {quote(str(home))}"))
    return found


def _closed_to(home: Path) -> int:
    """Return the bits that the mode of a home must not have."""
    return stat.S_IRWXO | stat.S_IRWXG if _is_own(home) else stat.S_IRWXO


def _is_own(home: Path) -> bool:
    try:
        return home.stat().st_uid == os.geteuid()
    except OSError:
        return False


def _has(path: Path, bits: int) -> bool:
    try:
        return bool(path.stat().st_mode & bits)
    except OSError:
        return False
