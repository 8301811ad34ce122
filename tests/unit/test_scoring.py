"""zeta.suitability, zeta.latest_start_ns and zeta.choose_replica beside plain Python and numpy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import zeta
from zeta import _core
from zeta.config import Scheduler

LEVELS = _core.simd_levels()
NEVER = int(np.iinfo(np.int64).max)
ODD = [math.nan, math.inf, -math.inf, 0.0, -0.0, 5e-324, -5e-324, 1e-10, 1e-9, 0.25, 0.5, 0.5, 1.0, 3.0, 1e300, -1e300]

Floats = NDArray[np.float64]
numbers = st.sampled_from(ODD) | st.floats(width=64)


def one_score(weights: zeta.Weights, complexity: float, left: float, quality: float, parts: list[float]) -> float:
    """The documented formula for one pair, in Python floats."""
    cost, first_token, held = parts
    quality = min(max(quality, 1e-6), 1.0 - 1e-6) if not math.isnan(quality) else quality
    hardness = math.exp(min(4.0 * (complexity - 0.5), 700.0)) if complexity >= 0.0 else math.inf
    p_good = 1.0 / (1.0 + (1.0 - quality) / quality * hardness)
    if left < 1e-9:
        risk = math.nan if math.isnan(first_token) else 1.0
    else:
        ratio = first_token if math.isnan(first_token) else min(first_token, 1e9)
        ratio *= 1.0 / left
        risk = ratio if math.isnan(ratio) else max(0.0, min(1.0, ratio))
    total = weights.quality * p_good - weights.cost * cost - weights.deadline * risk + weights.affinity * held
    return -math.inf if math.isnan(total) else total


def columns(n: int, m: int, seed: int = 0) -> dict[str, Floats]:
    rng = np.random.default_rng(seed)
    return {
        "complexity": rng.random(n),
        "time_left_s": rng.uniform(-0.5, 5.0, n),
        "quality": rng.random(m),
        "relative_cost": rng.random((m, n)),
        "first_token_s": rng.uniform(0.0, 4.0, (m, n)),
        "prefix_held": rng.random((m, n)),
    }


def test_scores_are_the_documented_formula() -> None:
    given = columns(257, 4)
    weights = zeta.Weights(quality=0.9, cost=0.3, deadline=1.5, affinity=0.1)
    scores, best = zeta.suitability(**given, weights=weights)
    for i in range(257):
        expected = [
            one_score(
                weights,
                given["complexity"][i],
                given["time_left_s"][i],
                given["quality"][j],
                [float(given[name][j, i]) for name in ("relative_cost", "first_token_s", "prefix_held")],
            )
            for j in range(4)
        ]
        assert scores[:, i] == pytest.approx(expected, abs=1e-13)
        assert best[i] == int(np.argmax(scores[:, i]))


@settings(max_examples=200, deadline=None)
@given(n=st.integers(0, 21), m=st.integers(1, 5), data=st.data())
def test_every_width_gives_the_same_bits_and_none_scores_what_is_unknown(n: int, m: int, data: st.DataObject) -> None:
    def draw(*shape: int) -> Floats:
        count = math.prod(shape)
        values = np.array(data.draw(st.lists(numbers, min_size=count, max_size=count)), np.float64)
        return np.concatenate([[0.0], values])[1:].reshape(shape)  # off the allocation's alignment

    given = {
        "complexity": draw(n),
        "time_left_s": draw(n),
        "quality": draw(m),
        "relative_cost": draw(m, n),
        "first_token_s": draw(m, n),
        "prefix_held": draw(m, n),
    }
    found = [zeta.suitability(**given, _level=level) for level in LEVELS]
    for scores, best in found:
        assert scores.tobytes() == found[0][0].tobytes()
        assert best.tobytes() == found[0][1].tobytes()
    scores, best = found[0]
    assert not np.isnan(scores).any()
    for i in range(n):
        assert best[i] == (-1 if np.isneginf(scores[:, i]).all() else int(np.argmax(scores[:, i])))
        for j in range(m):
            parts = [given[name][j, i] for name in ("relative_cost", "first_token_s", "prefix_held")]
            if np.isnan([given["time_left_s"][i], given["quality"][j], *parts]).any():
                assert scores[j, i] == -math.inf


def test_one_value_per_model_is_the_same_as_a_row_of_it() -> None:
    given = columns(300, 3)
    narrow = {name: given[name][:, 0].copy() for name in ("relative_cost", "first_token_s", "prefix_held")}
    wide = {name: np.repeat(values[:, None], 300, axis=1) for name, values in narrow.items()}
    first, _ = zeta.suitability(**(given | narrow))
    second, _ = zeta.suitability(**(given | wide))
    assert first.tobytes() == second.tobytes()


def test_results_go_where_the_caller_says() -> None:
    given = columns(10, 2)
    out, best_out = np.full((2, 10), np.nan), np.full(10, -9, np.int64)
    scores, best = zeta.suitability(**given, out=out, best_out=best_out)
    assert scores is out
    assert best is best_out
    assert not np.isnan(out).any()
    assert (best_out >= 0).all()


def test_the_scheduler_and_the_columns_agree() -> None:
    """On two idle models of the same engine, each on a device of its own, for a request without a deadline."""
    weights = zeta.Weights(quality=2.0, cost=0.125, deadline=1.0, affinity=0.0)
    quality = {"weak": 0.4, "strong": 0.8}
    router = zeta.Router(
        [zeta.Model(name, q, replicas=[zeta.Replica(name)], engine_model="same") for name, q in quality.items()],
        scheduler=Scheduler(hold_quality_gap=1.0, weights=weights),
        background=False,
    )
    ticket = router.submit(prompt_tokens=100, max_tokens=10, complexity=0.3)
    [lease] = router.poll()
    shown = router.explain(ticket)["scores"]
    router.close()
    scores, best = zeta.suitability(
        np.array([0.3]),
        np.array([math.inf]),
        np.array(list(quality.values())),
        np.array([1.0, 1.0]),
        np.array([0.01, 0.01]),
        weights=weights,
    )
    assert [shown[name] for name in quality] == pytest.approx(scores[:, 0].tolist(), abs=1e-6)
    assert lease.model == list(quality)[best[0]] == "strong"


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"complexity": [0.5] * 10}, TypeError, "complexity: expected a numpy array of float64, got list"),
        ({"complexity": np.zeros(10, np.float32)}, ValueError, "numpy.ascontiguousarray"),
        ({"complexity": np.zeros(10, ">f8")}, ValueError, "complexity"),
        ({"complexity": np.zeros(20)[::2]}, ValueError, "not contiguous"),
        ({"time_left_s": np.zeros(9)}, ValueError, r"time_left_s: got shape \(9,\), expected \(10,\)"),
        ({"quality": np.zeros(33)}, ValueError, "1 to 32"),
        ({"quality": np.zeros(0)}, ValueError, "1 to 32"),
        ({"relative_cost": np.zeros((10, 2))}, ValueError, "one row per model"),
        ({"first_token_s": np.zeros(10)}, ValueError, "one row per model"),
        ({"out": np.zeros((10, 2))}, ValueError, r"out: got shape \(10, 2\), expected \(2, 10\)"),
        ({"best_out": np.zeros(10)}, ValueError, "int64"),
        ({"weights": zeta.Replica("a")}, AttributeError, "quality"),
        ({"_level": "wider"}, ValueError, "simd_levels"),
        ({"colour": 1}, TypeError, "'colour' is unknown"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_sentence(
    change: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        zeta.suitability(**(columns(10, 2) | change))


def test_results_may_not_overwrite_what_is_still_read() -> None:
    given = columns(10, 2)
    with pytest.raises(ValueError, match="out shares memory"):
        zeta.suitability(**given, out=given["relative_cost"])
    frozen = np.zeros((2, 10))
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        zeta.suitability(**given, out=frozen)


def test_a_missing_column_is_named() -> None:
    given = columns(10, 2)
    del given["first_token_s"]
    with pytest.raises(TypeError, match="suitability\\(\\) needs first_token_s"):
        zeta.suitability(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf])
def test_weights_are_finite_and_not_negative(value: float) -> None:
    class Loose:
        quality, cost, deadline, affinity = 1.0, value, 1.0, 1.0

    with pytest.raises(ValueError, match=r"weights\.cost"):
        zeta.suitability(**columns(4, 2), weights=Loose())
    with pytest.raises(zeta.ZetaError):
        zeta.Weights(cost=value)


def test_keys_are_deadlines_less_the_fastest_service() -> None:
    deadline = np.array([5_000_000_000, NEVER, 1_000, 5_000_000_000], np.int64)
    service = np.array([[2.0, 2.0, 2.0, math.nan], [1.5, 1.0, 3.0, math.nan]])
    keys = zeta.latest_start_ns(deadline, service)
    assert keys.dtype == np.uint64
    assert keys.tolist() == [3_500_000_000, NEVER, 0, 5_000_000_000]
    out = np.empty(4, np.uint64)
    assert zeta.latest_start_ns(deadline, np.array([0.5]), out=out) is out
    assert out[0] == 4_500_000_000


def plain_choice(load: Floats, room: Floats, held: Floats | None, prefill_s: float) -> int:
    waits = [
        (float(load[i] + prefill_s * (1.0 - (0.0 if held is None else held[i]))), i)
        for i in range(len(load))
        if room[i] >= 1.0
    ]
    known = [pair for pair in waits if not math.isnan(pair[0]) and pair[0] != math.inf]
    return min(known)[1] if known else -1


@settings(max_examples=300, deadline=None)
@given(n=st.integers(0, 70), has_prefix=st.booleans(), data=st.data())
def test_the_choice_is_the_first_of_the_soonest_at_every_width(n: int, has_prefix: bool, data: st.DataObject) -> None:
    def draw() -> Floats:
        values = data.draw(st.lists(numbers, min_size=n, max_size=n))
        return np.array([0.0, *values])[1:]

    load, room, held = draw(), draw(), draw() if has_prefix else None
    with np.errstate(all="ignore"):
        expected = plain_choice(load, room, held, 0.5)
    assert {zeta.choose_replica(load, room, held, 0.5, _level=level) for level in LEVELS} == {expected}


def test_a_cached_prefix_is_worth_the_prefill_that_it_saves() -> None:
    load, room, held = np.array([0.0, 0.5]), np.ones(2), np.array([0.0, 1.0])
    assert zeta.choose_replica(load, room, held, prefill_s=0.4) == 0
    assert zeta.choose_replica(load, room, held, prefill_s=0.6) == 1
    assert zeta.choose_replica(load, np.zeros(2)) == -1


@pytest.mark.parametrize("prefill_s", [-1.0, math.nan, math.inf])
def test_a_prefill_that_is_no_time_is_refused(prefill_s: float) -> None:
    with pytest.raises(ValueError, match="prefill_s"):
        zeta.choose_replica(np.zeros(2), np.ones(2), None, prefill_s)


def test_weights_can_be_set_in_the_file_and_reach_the_core() -> None:
    from zeta.config import loads
    from zeta.scheduler._native_config import native_config

    config = loads(
        "[scheduler.weights]\ncost = 0.75\naffinity = 0\n"
        '[[models]]\nname = "one"\nquality = 0.5\n[[models.replicas]]\nname = "one-0"\n'
    )
    native, _ = native_config(config)
    assert (native.weights.quality, native.weights.cost, native.weights.affinity) == (1.0, 0.75, 0.0)
    with pytest.raises(zeta.ZetaError, match="deadlines"):
        loads("[scheduler.weights]\ndeadlines = 1.0\n")
