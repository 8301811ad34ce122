"""Claims about the board as Python sees it: rows in, whole copies out, the unknown marked and never zero."""

from __future__ import annotations

import math

import numpy as np
import pytest

from zeta._core import ReadingBoard, reading_fields, reading_identity
from zeta.monitor import Kind, fields_of

GPU = reading_identity("device", "GPU-5a1c")
S = 1_000_000_000
NAN = math.nan


def arrays(board: ReadingBoard) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    shape = (board.rows, board.fields)
    return np.zeros(shape), np.zeros(shape), np.ones(shape, dtype=bool)


@pytest.mark.parametrize("kind", list(Kind))
def test_the_core_s_columns_are_the_schema_s(kind: Kind) -> None:
    assert reading_fields(kind) == [field.name for field in fields_of(kind)]


def test_a_kind_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match='kind is "gpu"; expected device, host or replica'):
        reading_fields("gpu")


def test_identities_differ_by_key_and_by_kind() -> None:
    keys = [("device", "a"), ("device", "b"), ("replica", "a"), ("host", "a")]
    assert len({reading_identity(*each) for each in keys}) == len(keys)


def test_a_copy_marks_what_is_unknown_and_gives_the_ages() -> None:
    board = ReadingBoard(3)
    values, ages_s, is_known = arrays(board)
    board.publish(1, GPU, np.array([0.25, NAN, 8.0]), 10 * S, S)
    board.publish(1, GPU, np.array([NAN, NAN, 9.0]), 11 * S, S)
    board.copy_into(values, ages_s, is_known, now_ns=int(11.5 * S))

    assert np.argwhere(is_known).tolist() == [[1, 2]]
    assert values[1, 2] == 9.0
    assert np.isnan(values[~is_known]).all()
    assert ages_s[1, :3].tolist() == [1.5, math.inf, 0.5]
    assert np.isinf(ages_s[[0, 2]]).all()


def test_a_stale_row_is_unknown_and_keeps_its_ages() -> None:
    board = ReadingBoard(1)
    values, ages_s, is_known = arrays(board)
    board.publish(0, GPU, np.array([0.25]), 10 * S, 3 * S)
    board.copy_into(values, ages_s, is_known, now_ns=13 * S)
    assert (values[0, 0], is_known[0, 0]) == (0.25, True)
    board.copy_into(values, ages_s, is_known, now_ns=13 * S + 1)
    assert (math.isnan(values[0, 0]), is_known[0, 0], ages_s[0, 0]) == (True, False, pytest.approx(3.0))


def test_one_row_reads_as_none_where_it_is_unknown() -> None:
    board = ReadingBoard(1)
    assert board.read(0, now_ns=0) is None
    board.publish(0, GPU, np.array([0.25, math.inf]), 10 * S, S)
    identity, values, ages_s = board.read(0, now_ns=10 * S)
    assert (identity, values[:3], ages_s[:3]) == (GPU, (0.25, None, None), (0.0, None, None))
    board.forget(0)
    assert board.read(0, now_ns=12 * S)[1:] == ((None,) * board.fields, (2.0, *(None,) * (board.fields - 1)))
    board.free(0)
    assert board.read(0, now_ns=12 * S) is None


def test_any_of_the_arrays_may_be_left_out() -> None:
    board = ReadingBoard(2)
    board.publish(0, GPU, np.array([0.25]), 10 * S, S)
    _, ages_s, is_known = arrays(board)
    board.copy_into(None, ages_s, now_ns=10 * S)
    assert ages_s[0, 0] == 0.0
    board.copy_into(None, None, is_known, now_ns=10 * S)
    assert np.argwhere(is_known).tolist() == [[0, 0]]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (np.zeros((2, 18), np.float32), "got float32 of shape \\(2, 18\\)"),
        (np.zeros((3, 18)), "got float64 of shape \\(3, 18\\)"),
        (np.zeros((18, 2)).T, "got float64 of shape \\(2, 18\\)"),
        (np.zeros(36), "shape \\(36,\\)"),
        ([[0.0] * 18] * 2, "got <class 'list'>"),
    ],
)
def test_an_array_that_does_not_fit_is_refused_with_the_shape_that_would(given: object, says: str) -> None:
    board = ReadingBoard(2)
    with pytest.raises(ValueError, match=f"of float64 and shape \\(2, 18\\); .*{says}.*numpy.empty"):
        board.copy_into(given, now_ns=0)


def test_a_read_only_array_is_refused() -> None:
    board = ReadingBoard(2)
    frozen = np.zeros((2, board.fields))
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="writeable"):
        board.copy_into(frozen, now_ns=0)


@pytest.mark.parametrize(
    ("values", "error", "says"),
    [
        ([0.5], TypeError, "values: expected a numpy array of float64"),
        (np.zeros(3, np.int64), ValueError, "values must be a contiguous 1-d array of float64"),
        (np.zeros(19), ValueError, "values has 19 entries, expected at most 18"),
    ],
)
def test_values_that_do_not_fit_are_refused(values: object, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        ReadingBoard(1).publish(0, GPU, values, 0, 0)


def test_a_row_that_is_not_there_is_refused() -> None:
    board = ReadingBoard(2)
    for call in (
        lambda: board.publish(2, GPU, np.zeros(1), 0, 0),
        lambda: board.read(2, now_ns=0),
        lambda: board.forget(2),
        lambda: board.free(2),
    ):
        with pytest.raises(IndexError, match="row 2 is not on a board of 2 rows"):
            call()


def test_a_board_without_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="a board has 1 to 65536 rows, got 0"):
        ReadingBoard(0)
