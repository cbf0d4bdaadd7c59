"""What the cosines of a model mean: how near it finds texts that have nothing to do with each other.

In:  a model that embeds texts.
Out: mean and spread of its cosines between tasks and the lessons of other tasks.
Does not know: what is made of them; `recall/floor.py` does.

Models differ: unrelated texts are at .49 for one, at .05 for another. What was never measured is measured at its first
use, on a dozen pairs of which no two are about the same; that takes one call of 36 short texts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from reme_mcp.models.embedder import Unrelated, unit

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Embed = Callable[[Sequence[str]], npt.NDArray[np.float32]]

# A task, and what was learned from it.
PAIRS = (
    (
        "Reset the password of a user who is locked out",
        "When an account is blocked after logins: look at the counter first, and tell the owner by another channel.",
    ),
    (
        "Choose a paint for the kitchen wall",
        "When a room is damp: let the wall dry, use a primer, and open the window for two days.",
    ),
    (
        "Translate the instructions of a sewing machine",
        "When terms of a craft are unknown: collect them in a glossary and ask a maker of the trade.",
    ),
    (
        "Plan a hike with an overnight stay in a hut",
        "When the weather in the mountains is uncertain: reserve two places and cancel one the day before.",
    ),
    (
        "Sort the photos of the last holiday by place",
        "When files have lost their dates: read the time from the camera's data, not from the disk.",
    ),
    (
        "Check whether the invoice of the plumber is right",
        "When a bill is higher than the offer: compare hours and material line by line.",
    ),
    (
        "Repair the chain of an old bicycle",
        "When a part is worn: measure it before the shop closes and take the old one along.",
    ),
    (
        "Write an invitation to the summer party of a school",
        "When many people are asked: put date, place and answer-by into the first line.",
    ),
    (
        "Compare two contracts for mobile phones",
        "When a tariff looks cheap: add up twenty-four months with the connection fee.",
    ),
    ("Move a shop to another server", "When an address changes: lower the lifetime of its record a day before."),
    (
        "Find out why the printer prints empty pages",
        "When a device does nothing: try another cable and its own test page.",
    ),
    ("Bake bread without yeast", "When dough does not rise: keep it warmer and wait, baking powder needs an acid."),
)
# A model that finds all of them equally near says nothing with its cosines.
MIN_SPREAD = 0.001


def measure_unrelated(embed: Embed, query_prefix: str) -> Unrelated | None:
    """Return the cosines of unrelated texts, `None` where the model can't tell texts apart; blocks.

    Args:
        embed: Returns (n, dim) float32, unit norm.
        query_prefix: What stands before a query.

    Raises:
        EmbedderError: The model failed.
    """
    import numpy as np

    count = len(PAIRS)
    tasks, lessons = zip(*PAIRS, strict=True)
    vectors = embed([*(query_prefix + task for task in tasks), *tasks, *lessons])
    # As experiences are searched: the middle of lesson and request.
    notes = unit(vectors[count : 2 * count] + vectors[2 * count :])
    cosines = (vectors[:count] @ notes.T)[~np.eye(count, dtype=bool)]
    spread = float(cosines.std())
    return Unrelated(float(cosines.mean()), spread) if spread >= MIN_SPREAD else None
