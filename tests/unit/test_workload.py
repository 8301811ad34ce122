"""Claims about workloads: required models, drawn complexities, SLOs, bursts, and sameness to the bit."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path

import numpy as np
import pytest

import zeta
from zeta.config import Config, default_fleet
from zeta.errors import ConfigError, TraceError
from zeta.sim._random import below, draws, splitmix64
from zeta.sim.spec import ReplaySpec
from zeta.sim.workload import MIX_RULES, Burst, Rules, Workload, build_workload, compressed, read_complexities
from zeta.traces import Trace, TraceChunk

FLEET = default_fleet()
S = 1_000_000_000


def trace_of(folder: Path, text: str) -> TraceChunk:
    path = folder / "t.csv"
    path.write_text(text)
    return Trace(path).read()


def fleet_of(count: int) -> Config:
    return Config(models=tuple(zeta.Model(f"m{rank}", rank / 10) for rank in range(count)))


@pytest.fixture(scope="module")
def azure() -> TraceChunk:
    return Trace.embedded().read()


def columns_of(work: Workload) -> list[np.ndarray]:
    values = [getattr(work, name) for name in work.__dataclass_fields__]
    return [value for value in values if isinstance(value, np.ndarray)]


# Random integers


def test_splitmix64_gives_its_published_numbers() -> None:
    # The reference sequence for state 1234567, as printed by several independent implementations.
    assert splitmix64(1_234_567, 5).tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


def test_streams_of_one_seed_and_seeds_of_one_stream_differ() -> None:
    columns = [draws(1, "a", 8), draws(1, "b", 8), draws(2, "a", 8), draws(0, "a", 8)]
    assert len({tuple(column.tolist()) for column in columns}) == len(columns)


def test_numbers_below_a_bound_are_even() -> None:
    counts = np.bincount(below(draws(3, "dice", 60_000), 6), minlength=6)
    assert len(counts) == 6
    assert counts.min() > 9_500


# Required model


def test_a_named_model_is_required_and_larger_ones_may_serve(tmp_path: Path) -> None:
    rows = "arrival_ms,model,prompt_tokens,output_tokens\n0,small,1,1\n1,mid,1,1\n2,large,1,1\n"
    work = build_workload(trace_of(tmp_path, rows), FLEET, Rules(), seed=0)
    assert work.required_model.tolist() == [0, 1, 2]
    assert work.allowed_mask.tolist() == [0b111, 0b110, 0b100]
    np.testing.assert_allclose(work.complexity, [1 / 6, 3 / 6, 5 / 6])


def test_models_are_ranked_by_quality_not_by_place_in_the_file(tmp_path: Path) -> None:
    fleet = Config(models=(zeta.Model("best", 0.9), zeta.Model("least", 0.1), zeta.Model("good", 0.5)))
    rows = "arrival_ms,model,prompt_tokens,output_tokens\n0,small,1,1\n1,mid,1,1\n2,large,1,1\n3,good,1,1\n"
    work = build_workload(trace_of(tmp_path, rows), fleet, Rules(), seed=0)
    assert [work.model_names[index] for index in work.required_model] == ["least", "good", "best", "good"]
    assert work.allowed_mask.tolist() == [0b111, 0b101, 0b001, 0b101]


@pytest.mark.parametrize(
    ("count", "ranks"), [(1, [0, 0, 0]), (2, [0, 1, 1]), (3, [0, 1, 2]), (4, [0, 2, 3]), (5, [0, 2, 4])]
)
def test_small_mid_and_large_stand_for_ascending_quality_in_any_fleet(
    tmp_path: Path, count: int, ranks: list[int]
) -> None:
    rows = "arrival_ms,model,prompt_tokens,output_tokens\n0,small,1,1\n1,mid,1,1\n2,large,1,1\n"
    work = build_workload(trace_of(tmp_path, rows), fleet_of(count), Rules(), seed=0)
    assert work.required_model.tolist() == ranks


def test_complexity_c_requires_the_floor_of_c_n_plus_first_model(tmp_path: Path) -> None:
    given = [0.0, 0.24999, 0.25, 0.5, 0.75, 0.99999, 1.0]
    rows = "".join(f"{at},1,1,{c}\n" for at, c in enumerate(given))
    work = build_workload(
        trace_of(tmp_path, "arrival_ms,prompt_tokens,output_tokens,complexity\n" + rows), fleet_of(4), Rules(), seed=0
    )
    assert work.required_model.tolist() == [0, 0, 1, 2, 3, 3, 3]
    assert work.complexity.tolist() == given
    assert not any("drawn" in note for note in work.notes)


def test_a_model_that_the_fleet_lacks_is_refused_with_the_nearest(tmp_path: Path) -> None:
    rows = "arrival_ms,model,prompt_tokens,output_tokens\n0,lrge,1,1\n"
    with pytest.raises(TraceError, match=r"'lrge' is not in the fleet.*did you mean 'large'"):
        build_workload(trace_of(tmp_path, rows), FLEET, Rules(), seed=0)


def test_only_rows_without_model_and_complexity_are_drawn(tmp_path: Path) -> None:
    rows = "arrival_ms,model,prompt_tokens,output_tokens,complexity\n0,large,1,1,\n1,,1,1,0.1\n2,,1,1,\n3,,9,9,\n"
    work = build_workload(trace_of(tmp_path, rows), FLEET, Rules(), seed=0)
    assert work.required_model[:2].tolist() == [2, 0]
    assert sorted(work.complexity[2:].tolist()) == [0.25, 0.75]
    assert "2 of 4 complexities are drawn by rule 'length' (seeded)" in work.notes


@pytest.mark.parametrize("mix", MIX_RULES)
def test_drawn_complexities_are_uniform_in_rank(azure: TraceChunk, mix: str) -> None:
    work = build_workload(azure, FLEET, Rules(mix=mix), seed=1)  # type: ignore[arg-type]
    count = len(work)
    np.testing.assert_allclose(np.sort(work.complexity), (np.arange(count) + 0.5) / count)
    assert np.ptp(np.bincount(work.required_model)) <= 1


def test_rule_length_gives_long_requests_to_large_models_but_not_strictly(azure: TraceChunk) -> None:
    work = build_workload(azure, FLEET, Rules(mix="length"), seed=1)
    length = work.prompt_tokens + 4 * work.output_tokens
    means = [length[work.required_model == index].mean() for index in range(3)]
    assert means == sorted(means)
    smallest_of_large = np.quantile(length[work.required_model == 2], 0.01)
    assert smallest_of_large < np.quantile(length[work.required_model == 1], 0.99)


def test_rule_uniform_does_not_look_at_length(azure: TraceChunk) -> None:
    work = build_workload(azure, FLEET, Rules(mix="uniform"), seed=1)
    assert abs(np.corrcoef(work.complexity, work.prompt_tokens)[0, 1]) < 0.03


def test_rule_shift_changes_the_favourite_every_120_s(azure: TraceChunk) -> None:
    work = build_workload(azure, FLEET, Rules(mix="shift"), seed=1)
    segment = work.arrival_ns // (120 * S)
    favourites = []
    for at in range(int(segment[-1])):
        counts = np.bincount(work.required_model[segment == at], minlength=3)
        assert counts.max() > 0.6 * counts.sum()
        favourites.append(int(counts.argmax()))
    assert all(before != after for before, after in itertools.pairwise(favourites))


# SLO


def test_slo_is_1_2_3_s_by_model_and_a_tenth_of_a_second_per_token(tmp_path: Path) -> None:
    rows = "arrival_ms,model,prompt_tokens,output_tokens\n0,small,1,10\n1,mid,1,20\n2,large,1,30\n"
    work = build_workload(trace_of(tmp_path, rows), FLEET, Rules(), seed=0)
    assert ((work.deadline_ns - work.arrival_ns) / S).tolist() == [1.0, 2.0, 3.0]
    assert ((work.end_deadline_ns - work.arrival_ns) / S).tolist() == [2.0, 4.0, 6.0]


def test_a_model_s_own_slo_wins_over_its_rank_s(tmp_path: Path) -> None:
    fleet = Config(models=(zeta.Model("only", 0.5, ttft_slo_ms=250, tpot_slo_ms=20),))
    work = build_workload(
        trace_of(tmp_path, "arrival_ms,prompt_tokens,output_tokens\n0,1,10\n"), fleet, Rules(), seed=0
    )
    assert (work.deadline_ns.tolist(), work.end_deadline_ns.tolist()) == ([250_000_000], [450_000_000])


def test_given_deadlines_win_and_are_never_loosened(tmp_path: Path) -> None:
    rows = "".join(f"{at}.0,1,10,0.1,500,\n{at}.1,1,10,0.1,,9000\n{at}.2,1,10,0.1,500,7000.5\n" for at in range(50))
    text = "arrival_s,prompt_tokens,output_tokens,complexity,deadline_ms,end_deadline_ms\n" + rows
    work = build_workload(trace_of(tmp_path, text), FLEET, Rules(slo="mixed"), seed=0)
    ttft_ms = (work.deadline_ns - work.arrival_ns) / 1e6
    end_ms = (work.end_deadline_ns - work.arrival_ns) / 1e6
    assert set(ttft_ms[0::3]) == set(ttft_ms[2::3]) == {500.0}
    assert set(ttft_ms[1::3]) == {1000.0, 10_000.0}
    assert set(end_ms[1::3]) == {9000.0}
    assert set(end_ms[2::3]) == {7000.5}
    assert set(end_ms[0::3]) == {1500.0, 10_500.0}


def test_mixed_makes_three_of_ten_slos_ten_times_looser(azure: TraceChunk) -> None:
    strict = build_workload(azure, FLEET, Rules(), seed=4)
    mixed = build_workload(azure, FLEET, Rules(slo="mixed"), seed=4)
    assert 0.28 < mixed.is_loose.mean() < 0.32
    factor = np.where(mixed.is_loose, 10, 1)
    np.testing.assert_array_equal(
        mixed.deadline_ns - mixed.arrival_ns, factor * (strict.deadline_ns - strict.arrival_ns)
    )
    np.testing.assert_array_equal(
        mixed.end_deadline_ns - mixed.arrival_ns, factor * (strict.end_deadline_ns - strict.arrival_ns)
    )
    assert not strict.is_loose.any()


# Time


def test_load_compresses_time_and_changes_nothing_else(azure: TraceChunk) -> None:
    once = build_workload(azure, FLEET, Rules(), seed=1)
    twice = build_workload(azure, FLEET, Rules(load=2.0), seed=1)
    np.testing.assert_array_equal(twice.arrival_ns, once.arrival_ns // 2)
    np.testing.assert_array_equal(twice.required_model, once.required_model)
    np.testing.assert_array_equal(twice.deadline_ns - twice.arrival_ns, once.deadline_ns - once.arrival_ns)


def test_compression_is_exact_integer_division() -> None:
    arrival_ns = np.array([0, 1, 999_999_999, 86_400 * S, 2**62], dtype=np.int64)
    for millionths in (1, 730_001, 1_000_000, 1_234_567, 1_000_000_000_000):
        expected = [int(at) * 1_000_000 // millionths for at in arrival_ns]
        if max(expected) < 2**63:
            assert compressed(arrival_ns, millionths / 1e6).tolist() == expected


def test_time_starts_at_the_first_arrival(tmp_path: Path) -> None:
    text = "arrival_s,prompt_tokens,output_tokens\n1700000000,1,1\n1700000002,1,1\n"
    work = build_workload(trace_of(tmp_path, text), FLEET, Rules(), seed=0)
    assert work.arrival_ns.tolist() == [0, 2 * S]
    assert work.origin_ns == 1_700_000_000 * S


def test_arrivals_of_a_coarse_clock_are_spread_over_its_tick(tmp_path: Path) -> None:
    rows = "".join(f"{3000 * tick},{tick + 1},1\n" * 9 for tick in range(200))
    chunk = trace_of(tmp_path, "arrival_ms,prompt_tokens,output_tokens\n" + rows)
    work = build_workload(chunk, FLEET, Rules(), seed=0)
    assert np.all(np.diff(work.arrival_ns) >= 0)
    assert len(np.unique(work.arrival_ns)) > 1790
    np.testing.assert_array_equal((work.arrival_ns + work.origin_ns) // (3 * S), work.prompt_tokens - 1)
    gaps_s = np.diff(work.arrival_ns) * 1e-9
    assert 0.25 < gaps_s.mean() < 0.42
    assert any("spread evenly" in note for note in work.notes)


def test_ties_that_are_no_clock_s_stay_ties(tmp_path: Path) -> None:
    rows = "".join(f"{at * at},1,1\n" * 20 for at in range(150))
    chunk = trace_of(tmp_path, "arrival_s,prompt_tokens,output_tokens\n" + rows)
    np.testing.assert_array_equal(build_workload(chunk, FLEET, Rules(), seed=0).arrival_ns, chunk.arrival_ns)
    assert len(np.unique(build_workload(chunk, FLEET, Rules(ties="spread"), seed=0).arrival_ns)) > 2990


def test_ties_can_be_kept(tmp_path: Path) -> None:
    rows = "".join(f"{at},1,1\n" * 3 for at in range(150))
    chunk = trace_of(tmp_path, "arrival_ms,prompt_tokens,output_tokens\n" + rows)
    assert len(np.unique(build_workload(chunk, FLEET, Rules(), seed=0).arrival_ns)) > 440
    np.testing.assert_array_equal(build_workload(chunk, FLEET, Rules(ties="keep"), seed=0).arrival_ns, chunk.arrival_ns)


def test_arrivals_of_a_fine_clock_stay_as_they_are(azure: TraceChunk) -> None:
    work = build_workload(azure, FLEET, Rules(), seed=0)
    np.testing.assert_array_equal(work.arrival_ns, azure.arrival_ns)


# Bursts


def test_a_burst_injects_work_for_one_model_at_a_multiple_of_its_rate(azure: TraceChunk) -> None:
    calm = build_workload(azure, FLEET, Rules(), seed=1)
    work = build_workload(azure, FLEET, Rules(bursts=(Burst("large", 3.0, 600.0, 120.0),)), seed=1)
    extra = work.is_injected
    rate_rps = (calm.required_model == 2).sum() / calm.duration_s
    assert extra.sum() == round(2 * rate_rps * 120)  # on top of the trace's own, so three times in all
    assert set(work.required_model[extra].tolist()) == {2}
    assert work.arrival_ns[extra].min() >= 600 * S
    assert work.arrival_ns[extra].max() < 720 * S
    assert np.all(np.diff(work.arrival_ns) >= 0)
    for name in ("arrival_ns", "prompt_tokens", "required_model", "source"):
        np.testing.assert_array_equal(getattr(work, name)[~extra], getattr(calm, name))
    seen = set(zip(azure.prompt_tokens.tolist(), azure.output_tokens.tolist(), strict=True))
    assert set(zip(work.prompt_tokens[extra].tolist(), work.output_tokens[extra].tolist(), strict=True)) <= seen


def test_a_second_burst_does_not_feed_on_the_first(azure: TraceChunk) -> None:
    one = Burst("small", 2.0, 100.0, 60.0)
    single = build_workload(azure, FLEET, Rules(bursts=(one,)), seed=1)
    double = build_workload(azure, FLEET, Rules(bursts=(one, one)), seed=1)
    assert double.is_injected.sum() == 2 * single.is_injected.sum()
    assert len(np.unique(double.arrival_ns[double.is_injected])) > 1.9 * single.is_injected.sum()


def test_a_burst_names_a_model_that_may_contain_colons() -> None:
    assert Burst.parse("qwen2.5:7b:2.5:10:60") == Burst("qwen2.5:7b", 2.5, 10.0, 60.0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "large",
        "large:3:600",
        "large:x:600:120",
        "large:0:600:120",
        "large:3:-1:1",
        ":1:1:1",
        "large:3:600:0",
        "large:nan:1:1",
    ],
)
def test_a_burst_of_another_shape_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected"):
        Burst.parse(text)


def test_a_burst_for_an_unknown_or_unused_model_is_refused(tmp_path: Path, azure: TraceChunk) -> None:
    with pytest.raises(ConfigError, match="did you mean 'large'"):
        build_workload(azure, FLEET, Rules(bursts=(Burst("lrge", 1, 0, 1),)), seed=0)
    only_small = trace_of(tmp_path, "arrival_ms,model,prompt_tokens,output_tokens\n0,small,1,1\n9,small,1,1\n")
    with pytest.raises(ConfigError, match="no request of the trace requires 'large'"):
        build_workload(only_small, FLEET, Rules(bursts=(Burst("large", 1, 0, 1),)), seed=0)


# The whole


def test_a_seed_gives_the_same_workload_and_another_gives_another(azure: TraceChunk) -> None:
    rules = Rules(load=1.25, mix="shift", slo="mixed", bursts=(Burst("mid", 2.0, 60.0, 60.0),))
    first, again, other = (build_workload(azure, FLEET, rules, seed=seed) for seed in (7, 7, 8))
    for left, right in zip(columns_of(first), columns_of(again), strict=True):
        np.testing.assert_array_equal(left, right)
    assert not np.array_equal(first.required_model, other.required_model)


def test_the_workload_of_a_seed_is_the_same_on_every_machine(azure: TraceChunk) -> None:
    rules = Rules(load=1.3, mix="length", slo="mixed", bursts=(Burst("large", 3.0, 600.0, 120.0),))
    work = build_workload(azure, FLEET, rules, seed=11)
    digest = hashlib.sha256()
    for column in columns_of(work):
        digest.update(np.ascontiguousarray(column).astype(column.dtype.newbyteorder("<")).tobytes())
    assert digest.hexdigest()[:16] == "1e6cc870641d5684"


def test_complexities_of_a_table_follow_the_trace_s_rows(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(
        "arrival_s,prompt_tokens,output_tokens\n2,1,1\n1,1,1\n3,1,0\n4,1,1\n"  # the third row is unusable
    )
    trace = Trace(tmp_path / "t.csv")
    rows = trace.read()
    table = tmp_path / "c.csv"
    table.write_text("complexity\n0.9\n0.1\n0.5\n0.4\n")
    values = read_complexities(table, trace.summary)
    assert build_workload(rows, FLEET, Rules(), 0, values).complexity.tolist() == [0.1, 0.9, 0.4]
    table.write_text("complexity\n0.9\n0.1\n")
    with pytest.raises(TraceError, match="has 2 rows; expected 4"):
        read_complexities(table, trace.summary)
    table.write_text("complexity\n0.9\n0.1\n7\n0.5\n")
    with pytest.raises(TraceError, match="line 4: complexity = '7'; expected 0 to 1"):
        read_complexities(table, trace.summary)
    with pytest.raises(TraceError, match="has no column 'complexity'"):
        read_complexities(tmp_path / "t.csv", trace.summary)


@pytest.mark.parametrize(
    "given",
    [
        {"load": 0.0},
        {"load": float("nan")},
        {"mix": "lngth"},
        {"slo": "strict"},
        {"policies": ()},
        {"policies": ("even", "even")},
        {"policies": ("evne",)},
        {"order": "lifo"},
        {"admission": "drop"},
        {"seeds": ()},
        {"seeds": (1, 1)},
        {"seeds": (-1,)},
        {"capacity_at": 1.0},
        {"actuation_delay_s": -1.0},
    ],
)
def test_a_replay_that_makes_no_sense_is_refused_when_it_is_asked_for(given: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        ReplaySpec(**given)  # type: ignore[arg-type]


def test_water_fill_runs_edf_and_every_other_policy_runs_both_orders() -> None:
    spec = ReplaySpec(policies=("water-fill", "even"))
    assert list(spec.pairs()) == [("water-fill", "edf"), ("even", "edf"), ("even", "fifo")]
    forced = ReplaySpec(policies=("water-fill", "even"), order="fifo")
    assert list(forced.pairs()) == [("water-fill", "fifo"), ("even", "fifo")]
