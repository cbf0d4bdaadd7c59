"""Vectors in memory: what is nearest, as they are now."""

from __future__ import annotations

import numpy as np
import pytest

from reme_mcp.store.matrix import Matrix


def filled(*vectors: tuple[float, float]) -> Matrix:
    matrix = Matrix(2)
    rows = len(vectors)
    matrix.put([f"e-{row}" for row in range(rows)], ["default"] * rows, [*range(rows)], np.asarray(vectors, np.float32))
    return matrix


def nearest(matrix: Matrix, workspace: str = "default", limit: int = 9) -> list[tuple[str, float]]:
    found = matrix.view(workspace).nearest(np.asarray([1, 0], np.float32), limit)
    return [(id, round(cosine, 4)) for id, cosine in found]


def test_the_nearest_come_first_and_no_more_than_are_wanted() -> None:
    matrix = filled((0, 1), (1, 0), (0.6, 0.8))
    assert nearest(matrix) == [("e-1", 1.0), ("e-2", 0.6), ("e-0", 0.0)]
    assert nearest(matrix, limit=2) == [("e-1", 1.0), ("e-2", 0.6)]
    assert nearest(matrix, limit=3) == nearest(matrix)
    assert nearest(Matrix(2)) == []


def test_a_vector_that_is_put_again_is_the_new_one() -> None:
    matrix = filled((0, 1), (1, 0))
    matrix.put(["e-1"], ["default"], [7], np.asarray([(0.6, 0.8)], np.float32))
    assert nearest(matrix) == [("e-1", 0.6), ("e-0", 0.0)]
    assert (len(matrix), matrix.places(["e-1", "e-0", "e-none"])) == (2, [7, 0])


@pytest.mark.parametrize("workspace", ["other", "nobody's"])
def test_no_other_workspace_is_searched(workspace: str) -> None:
    matrix = filled((0, 1), (1, 0))
    matrix.put(["e-2"], ["other"], [2], np.asarray([(0.6, 0.8)], np.float32))
    assert nearest(matrix, workspace) == ([("e-2", 0.6)] if workspace == "other" else [])
    assert nearest(matrix) == [("e-1", 1.0), ("e-0", 0.0)]


def test_a_search_that_has_begun_sees_nothing_of_what_is_put_meanwhile() -> None:
    matrix = filled((0, 1), (1, 0))
    view = matrix.view("default")
    for place in range(9):
        matrix.put(["e-1", f"e-new {place}"], ["default"] * 2, [place] * 2, np.asarray([(0, 1), (1, 0)], np.float32))
    assert view.nearest(np.asarray([1, 0], np.float32), 9) == [("e-1", 1.0), ("e-0", 0.0)]
    assert len(nearest(matrix, limit=99)) == 11


def test_what_is_put_again_and_again_takes_no_more_room() -> None:
    matrix = filled(*[(0, 1)] * 10)
    for turn in range(100):
        matrix.put([f"e-{turn % 10}"], ["default"], [turn], np.asarray([(1, 0)], np.float32))
    assert len(matrix) == 10
    assert len(matrix.view("default").vectors) <= 20
    assert nearest(matrix, limit=99) == [(f"e-{number}", 1.0) for number in range(10)]
