"""The experiences of a workspace without their texts, as columns, which are counted and put in order at once.

In:  what LanceDB read, and the counters of the ledger.
Out: columns to compare and to sort by.
Does not know: what is counted, or in which order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reme_mcp.schema import Counters, Summary
from reme_mcp.store.tables import values_in

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

    Flags = npt.NDArray[np.bool_]
    Numbers = npt.NDArray[np.int64]
    Times = npt.NDArray[np.datetime64]


# What the ledger knows better than a row.
COUNTED = ("frequency", "utility")
PLAIN = ("prior_frequency", "prior_utility", "pinned", "created_at", "counted_since")


@dataclass(frozen=True, slots=True)
class Names:
    """A column of texts of which few differ: those, and which of them stands in each row."""

    texts: list[str]
    places: Numbers

    def are(self, *texts: str) -> Flags:
        """Return in which rows one of these stands."""
        import numpy as np

        return np.isin(self.places, [place for place, text in enumerate(self.texts) if text in texts])

    def counts(self) -> dict[str, int]:
        """Return how often each stands there, the most frequent first."""
        import numpy as np

        counted = np.bincount(self.places, minlength=len(self.texts)).tolist()
        found = [(text, count) for text, count in zip(self.texts, counted, strict=True) if count]
        return dict(sorted(found, key=lambda pair: -pair[1]))


@dataclass(frozen=True, slots=True)
class Summaries:
    """Experiences without their texts, the newest first; a column for each field that is asked for, and all as rows."""

    id: list[str]
    kind: Names
    status: Names
    source: Names
    frequency: Numbers
    utility: Numbers
    prior_frequency: Numbers
    prior_utility: Numbers
    pinned: Flags
    created_at: Times
    counted_since: Times
    rows: pa.Table
    _places: dict[str, int]

    def places(self, ids: Iterable[str]) -> Numbers:
        """Return in which rows these stand; -1 for one that is not there."""
        import numpy as np

        return np.array([self._places.get(id, -1) for id in ids], np.int64)

    def rows_of(self, ids: Iterable[str]) -> Flags:
        """Return in which rows one of these stands."""
        import numpy as np

        rows = np.zeros(len(self), bool)
        places = self.places(ids)
        rows[places[places >= 0]] = True
        return rows

    def at(self, places: Numbers) -> list[Summary]:
        """Return those in some places, each as a value."""
        return values_in(Summary, self.rows.take(places))

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.id)


def summaries_of(rows: pa.Table, counters: Mapping[str, Counters]) -> Summaries:
    """Return rows as columns; the counters that the ledger has count, not what stands in a row."""
    import pyarrow as pa

    rows = rows.sort_by([("created_at", "descending"), ("id", "ascending")]).combine_chunks()
    ids: list[str] = rows.column("id").to_pylist()
    places = {id: place for place, id in enumerate(ids)}
    numbers = {name: rows.column(name).to_numpy().copy() for name in COUNTED}
    for id, known in counters.items():
        if (place := places.get(id)) is not None:
            for name, column in numbers.items():
                column[place] = getattr(known, name)
    for name, column in numbers.items():
        rows = rows.set_column(rows.schema.get_field_index(name), name, pa.array(column))
    return Summaries(
        id=ids,
        kind=_names(rows.column("kind")),
        status=_names(rows.column("status")),
        source=_names(rows.column("source")),
        **numbers,
        **{name: rows.column(name).to_numpy() for name in PLAIN},
        rows=rows,
        _places=places,
    )


def _names(column: pa.ChunkedArray) -> Names:
    import numpy as np

    encoded = column.combine_chunks().dictionary_encode()
    return Names(encoded.dictionary.to_pylist(), encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64))
