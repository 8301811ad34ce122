"""What the scheduler learns of its engines' times, in replay: engines that are not what the priors say."""

from __future__ import annotations

import dataclasses

import pytest

from zeta.config import Config, default_fleet
from zeta.engine_tables import ServiceModel
from zeta.scheduler import _native_config
from zeta.sim.replay import run_replay
from zeta.sim.results import Run
from zeta.sim.spec import ReplaySpec

LOAD = 1.5  # near the fleet's capacity: there it matters what a request is thought to cost


def replayed(monkeypatch: pytest.MonkeyPatch, prefill: float, decode: float, *, learns: bool, seed: int = 7) -> Run:
    """The embedded hour, with priors that are this many times the engines' real times."""
    prior = _native_config.service_prior

    def wrong(kind: str | None, model: str, tp: int = 1) -> ServiceModel:
        right = prior(kind, model, tp)
        return dataclasses.replace(
            right,
            prefill_base_s=right.prefill_base_s * prefill,
            prefill_per_token_s=right.prefill_per_token_s * prefill,
            prefill_per_token2_s=right.prefill_per_token2_s * prefill,
            decode_base_s=right.decode_base_s * decode,
            decode_per_sequence_s=right.decode_per_sequence_s * decode,
            decode_per_context_token_s=right.decode_per_context_token_s * decode,
        )

    with monkeypatch.context() as patched:
        patched.setattr(_native_config, "service_prior", wrong)
        return run_replay(ReplaySpec(fleet=fleet(learns), load=LOAD, seeds=(seed,))).results[0]


def fleet(learns: bool) -> Config:
    config = default_fleet()
    return dataclasses.replace(config, scheduler=dataclasses.replace(config.scheduler, learns_service=learns))


@pytest.mark.parametrize(("prefill", "decode"), [(2.0, 2.0), (0.5, 0.5), (3.0, 1.0)])
def test_wrong_priors_cost_little_once_they_are_learned(
    monkeypatch: pytest.MonkeyPatch, prefill: float, decode: float
) -> None:
    right = replayed(monkeypatch, 1.0, 1.0, learns=True).attainment
    learned = replayed(monkeypatch, prefill, decode, learns=True).attainment
    unlearned = replayed(monkeypatch, prefill, decode, learns=False).attainment
    assert learned >= unlearned - 0.001
    assert right - learned <= max(0.5 * (right - unlearned), 0.005)
