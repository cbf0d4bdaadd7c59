"""What a process keeps in memory of all experiences, so that it need not look for them on disk.

In:  places, and experiences as they were read; which version of the table that was.
Out: the same.
Does not know: where they come from, or when they are out of date.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from reme_mcp.schema import Experience, Status

# How many experiences that were read are kept in memory, at about 5 kB each.
REMEMBERED = 512


@dataclass(frozen=True, slots=True)
class Place:
    """Where an experience stands in its table, and what decides whether a search may hand it out."""

    row: int
    workspace: str
    status: Status


@dataclass(slots=True)
class Directory:
    """What is in memory of all experiences, up to `version` of the table.

    To find a row by its id LanceDB looks into every fragment, of which each write leaves one; to take a row whose place
    is known costs the same however many there are.

    Attributes:
        places: By id.
        provisional: The ids of those that are.
        workspaces: The names of all that there have been.
        read: Experiences that were read lately, by id: what a recall hands out comes up again when it is settled.
    """

    places: dict[str, Place] = field(default_factory=dict)
    provisional: set[str] = field(default_factory=set)
    workspaces: set[str] = field(default_factory=set)
    read: dict[str, Experience] = field(default_factory=dict)
    is_too_large: bool = False
    version: int = 0

    def put(self, id: str, place: Place) -> None:
        """Take in where an experience stands now; whatever was read of it is old."""
        self.places[id] = place
        self.workspaces.add(place.workspace)
        self.read.pop(id, None)
        if place.status == "provisional":
            self.provisional.add(id)
        else:
            self.provisional.discard(id)

    def clear(self) -> None:
        """Forget everything, the version too: whoever is interrupted after this starts anew."""
        self.places.clear()
        self.provisional.clear()
        self.workspaces.clear()
        self.read.clear()
        self.version = 0

    def remember(self, experiences: Iterable[Experience]) -> None:
        """Keep the experiences that were read, in the place of the oldest ones where there are too many."""
        self.read |= {one.id: one for one in experiences}
        for id in list(self.read)[: max(0, len(self.read) - REMEMBERED)]:
            del self.read[id]
