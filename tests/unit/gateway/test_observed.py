"""What the hot path records is counted once, whatever it says, in bounded memory."""

from __future__ import annotations

import math

import numpy as np
import pytest

from zeta.gateway._observed import NO_MODEL, OTHER, Distribution, Observed, class_name

_SECOND_NS = 1_000_000_000


@pytest.fixture
def observed() -> Observed:
    return Observed(["7b", "14b"])


def rows(*numbers: int) -> np.ndarray:
    return np.array(numbers, dtype=np.int64)


def test_a_value_on_a_bound_counts_in_the_bucket_below_it() -> None:
    seen = Distribution(1, 1.0, 100.0)
    seen.add(rows(0, 0, 0, 0), np.array([1.0, 2.0, 2.0001, 1e9]))
    buckets, total_s = seen.buckets(0)
    assert dict(buckets) == {
        "0.001": 1,
        "0.002": 2,
        "0.005": 3,
        "0.01": 3,
        "0.02": 3,
        "0.05": 3,
        "0.1": 3,
        "+Inf": 4,
    }
    assert total_s == pytest.approx((1 + 2 + 2.0001 + 1e9) * 1e-3)


def test_percentiles_are_within_five_percent_of_the_sorted_values() -> None:
    values = np.random.default_rng(7).lognormal(4.0, 1.2, 20_000)
    seen = Distribution(2, 1.0, 100_000.0)
    seen.add(np.ones(len(values), dtype=np.int64), values)
    found = seen.percentiles_ms(1, 0.5, 0.9, 0.99)
    assert found == pytest.approx(np.quantile(values, [0.5, 0.9, 0.99]), rel=0.05)
    assert seen.percentiles_ms(0, 0.5) is None


def test_what_is_no_number_counts_as_zero_and_spoils_no_sum() -> None:
    seen = Distribution(1, 1.0, 100.0)
    seen.add(rows(0, 0, 0), np.array([math.nan, -5.0, 3.0]))
    assert seen.count(0) == 3
    assert seen.buckets(0)[1] == pytest.approx(0.003)


def test_nothing_recorded_is_lost_or_counted_twice_across_folds(observed: Observed) -> None:
    for number in range(5000):
        observed.placed("7b", number % 4, 10.0, 8.0, "promise")
        observed.first_token("7b", 100.0)
        observed.ended("7b", "acme", "completed", 100.0, 20.0, 900.0, 3, number % 2 == 0)
    observed.fold()
    observed.fold()
    assert [observed.queue_wait.count(observed.queue_row("7b", each)) for each in range(4)] == [1250] * 4
    assert observed.decision.count(0) == 5000
    assert observed.ttft.count(observed.row("7b")) == 5000
    assert observed.reasons() == {("7b", "promise"): 5000}
    assert observed.outcomes() == {("7b", "completed"): 5000}
    assert observed.output_tokens("7b") == 15_000
    assert observed.slo("7b") == (5000, 2500)
    assert observed.attainment("7b") == observed.attainment() == 0.5
    assert observed.tenants() == {"acme": (5000, 5000, 2500)}


def test_buffers_stay_short_without_a_reader(observed: Observed) -> None:
    for _ in range(10_000):
        observed.placed("7b", 1, 10.0, 8.0)
        observed.first_token("7b", 100.0)
        observed.ended("7b", "acme", "completed", None, None, 900.0, None, None)
    assert max(len(observed._placed), len(observed._first), len(observed._ended)) < 1024


def test_unknown_models_tenants_and_words_take_no_more_memory(observed: Observed) -> None:
    for number in range(3000):
        observed.placed(f"made-up-{number}", 1, 1.0, 1.0, "a prompt, of all things")
        observed.ended(f"made-up-{number}", f"t{number}", "completed", None, None, 1.0, None, None)
        observed.refused(400 + number, f"r{number}")
    observed.refused(400, "sk-canary Tell me a secret")
    assert observed.reasons() == {(OTHER, OTHER): 3000}
    assert observed.outcomes() == {(OTHER, "completed"): 3000}
    assert len(observed.tenants()) <= 257
    assert len(observed.refusals()) <= 65
    assert sum(observed.refusals().values()) == 3001
    assert "canary" not in repr(observed.refusals())


def test_a_request_that_ran_nowhere_and_one_without_a_promise(observed: Observed) -> None:
    observed.ended(None, "acme", "rejected_capacity", None, None, 2.0, None, False)
    observed.ended(None, "acme", "cancelled", None, None, 2.0, None, None)
    assert observed.outcomes() == {(NO_MODEL, "rejected_capacity"): 1, (NO_MODEL, "cancelled"): 1}
    assert observed.slo(NO_MODEL) == (1, 0)
    assert observed.attainment() == 0.0
    assert observed.attainment("7b") is None
    assert observed.tpot.count(observed.row(NO_MODEL)) == 0


def test_after_a_minute_of_silence_nothing_is_of_late_and_everything_since_the_start_stays(observed: Observed) -> None:
    observed.advance(0)
    observed.first_token("7b", 100.0)
    observed.ended("7b", "acme", "completed", 100.0, 20.0, 900.0, 3, True)
    for second in range(1, 50):
        observed.advance(second * _SECOND_NS)
    row = observed.row("7b")
    assert observed.ttft.percentiles_ms(row, 0.5) == pytest.approx((100.0,), rel=0.05)
    assert observed.attainment("7b") == 1.0
    observed.advance(61 * _SECOND_NS)
    assert observed.ttft.percentiles_ms(row, 0.5) is None
    assert observed.attainment("7b") is None
    assert (observed.ttft.count(row), observed.slo("7b")) == (1, (1, 1))


def test_a_priority_out_of_range_counts_in_the_nearest_class(observed: Observed) -> None:
    observed.placed("7b", 99, 1.0, 1.0)
    observed.placed("7b", -1, 1.0, 1.0)
    observed.fold()
    assert [observed.queue_wait.count(observed.queue_row("7b", each)) for each in range(4)] == [1, 0, 0, 1]


def test_four_classes_have_names_and_others_numbers() -> None:
    assert [class_name(each) for each in range(4)] == ["urgent", "normal", "batch", "idle"]
    assert class_name(1, 3) == "1"
