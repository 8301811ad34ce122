"""From a configuration to simulated devices, and the work that requests are predicted to be."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from zeta.config import Config, Device, Model, Replica, default_fleet
from zeta.errors import ConfigError
from zeta.sim.fleet import build_fleet
from zeta.sim.workload import Rules, Workload, build_workload
from zeta.traces import Trace

KIND = "h200-sxm-141gb"


def fleet_of(colocation: str, replicas: int = 1) -> Config:
    copies = tuple(Replica(name=f"r{number}") for number in range(replicas))
    models = tuple(
        Model(name, quality, device="gpu0", replicas=tuple(Replica(name=f"{name}-{r.name}") for r in copies))
        for name, quality in (("qwen2.5-7b", 0.5), ("qwen2.5-14b", 0.7))
    )
    return Config(models=models, devices=(Device("gpu0", kind=KIND, colocation=colocation),))  # type: ignore[arg-type]


def workload_of(folder: Path, text: str) -> Workload:
    path = folder / "trace.csv"
    path.write_text("arrival_s,model,prompt_tokens,output_tokens\n" + text)
    return build_workload(Trace(path).read(), default_fleet(), Rules(), seed=0)


def test_models_that_name_a_device_share_it() -> None:
    fleet = build_fleet(default_fleet())
    assert [(how, len(engines)) for how, engines in fleet.devices] == [("timeslice", 3)]
    assert fleet.places == [(0, 0), (0, 1), (0, 2)]
    assert fleet.capacity_gpus == 1


@pytest.mark.parametrize("colocation", ["timeslice", "mps", "swap"])
def test_replicas_on_a_shared_device_are_engines_of_it(colocation: str) -> None:
    fleet = build_fleet(fleet_of(colocation, replicas=2))
    assert [(how, len(engines)) for how, engines in fleet.devices] == [(colocation, 4)]
    assert fleet.places == [(0, 0), (0, 1), (0, 2), (0, 3)]


def test_exclusive_replicas_have_a_device_each() -> None:
    fleet = build_fleet(fleet_of("exclusive", replicas=2))
    assert [(how, len(engines)) for how, engines in fleet.devices] == [("exclusive", 1)] * 4
    assert fleet.places == [(0, 0), (1, 0), (2, 0), (3, 0)]
    assert fleet.capacity_gpus == 4


def test_predicted_work_adds_up_over_requests_and_grows_with_model_prompt_and_answer(tmp_path: Path) -> None:
    rows = "0,small,1000,100\n1,large,1000,100\n2,small,2000,100\n3,small,1000,200\n4,small,1000,100\n"
    work = build_fleet(default_fleet()).predicted_work_s(workload_of(tmp_path, rows))
    assert work[0] == work[4]
    assert work[1] > 1.5 * work[0]
    assert work[0] < work[2] < 2.5 * work[0]
    assert work[0] < work[3] < 2.5 * work[0]
    assert 0.02 < work[0] < 0.2  # GPU-seconds


def test_predicted_work_is_the_services_own_formula(tmp_path: Path) -> None:
    fleet = build_fleet(default_fleet())
    work = fleet.predicted_work_s(workload_of(tmp_path, "0,large,3000,150\n"))
    service = fleet.service_models[2]
    prompt, output = 3000.0, 150.0
    prefill_s = service.prefill_base_s + service.prefill_per_token_s * prompt + service.prefill_per_token2_s * prompt**2
    step_s = (
        service.decode_base_s / service.reference_batch
        + service.decode_per_sequence_s
        + service.decode_per_context_token_s * (prompt + output / 2)
    )
    np.testing.assert_allclose(work, prefill_s + output * step_s)


def test_a_model_without_replica_device_or_kind_says_what_is_missing() -> None:
    shared = fleet_of("timeslice")
    bare = dataclasses.replace(shared.models[1], replicas=())
    with pytest.raises(ConfigError, match=r"models\[1\] \(qwen2.5-14b\) has no replica; the simulator needs"):
        build_fleet(dataclasses.replace(shared, models=(shared.models[0], bare)))
    homeless = dataclasses.replace(shared.models[0], device=None)
    with pytest.raises(ConfigError, match=r"models\[0\].device = None gives no kind of GPU"):
        build_fleet(dataclasses.replace(shared, models=(homeless, shared.models[1])))
    with pytest.raises(ConfigError, match=r"models\[0\].device = 'gpu0' gives no kind of GPU"):
        build_fleet(dataclasses.replace(shared, devices=(Device("gpu0"),)))


def test_a_kind_of_gpu_without_step_times_is_refused() -> None:
    shared = fleet_of("timeslice")
    with pytest.raises(ConfigError, match="abacus"):
        build_fleet(dataclasses.replace(shared, devices=(Device("gpu0", kind="abacus"),)))
