"""Settings reach the core whole, and both sides have the same defaults."""

from __future__ import annotations

import dataclasses

import pytest

from zeta import Device, Model, Replica, Tenant, _core, engine_tables
from zeta.config import Config, Scheduler, Weights, default_fleet
from zeta.engine_tables import ServiceModel
from zeta.errors import ConfigError
from zeta.scheduler import native_config
from zeta.scheduler._native_config import DEFAULT_KV_TOKENS
from zeta.scheduler._priors import billion_parameters, service_prior

SERVICE = ServiceModel(0.01, 1e-5, 0.0, 0.01, 1e-5, 1e-8)
SHARE_NAMES = {
    "policy": "policy",
    "share_floor": "floor",
    "share_step": "max_step",
    "share_hysteresis": "hysteresis",
    "boost_share": "boost_share",
}
OF_THE_RUNTIME = {"tick_interval_ms", "forecast", "forecast_model"}


def one_model(**changes: object) -> Config:
    return Config(models=(Model("m", 0.5, replicas=(Replica("r"),), **changes),))  # type: ignore[arg-type]


def plain(of_core: object) -> object:
    """What the core holds, as a setting says it."""
    if not isinstance(of_core, _core.SuitabilityWeights):
        return of_core
    return Weights(of_core.quality, of_core.cost, of_core.deadline, of_core.affinity)


@pytest.mark.parametrize(
    "field", [f for f in dataclasses.fields(Scheduler) if f.name not in OF_THE_RUNTIME], ids=lambda f: f.name
)
def test_scheduler_settings_and_the_core_have_the_same_defaults(field: dataclasses.Field[object]) -> None:
    core = _core.SchedulerConfig()
    of_core = getattr(core.share, SHARE_NAMES[field.name]) if field.name in SHARE_NAMES else getattr(core, field.name)
    assert plain(of_core) == field.default


def test_models_replicas_and_devices_have_the_same_defaults_in_the_core() -> None:
    core = _core.SchedulerConfig()
    core.add_device()
    core.add_model(quality=0.5, service=_core.ServiceModel(**dataclasses.asdict(SERVICE)), device=0)
    core.add_replica(model=0)
    device, model, replica = Device("d"), Model("m", 0.5), Replica("r")
    assert core.devices == [
        {
            "is_shared": True,
            "prefill_budget": device.prefill_budget,
            "is_swapped": False,
            "swap_s": device.swap_s,
            "awaits_load": False,
        }
    ]
    assert core.models[0]["tpot_slo_ms"] == model.tpot_slo_ms
    assert core.models[0]["mean_output_tokens"] == model.mean_output_tokens
    assert core.replicas == [
        {
            "model": 0,
            "max_in_flight": replica.max_in_flight,
            "max_batch": replica.max_batch,
            "kv_tokens": DEFAULT_KV_TOKENS,
        }
    ]


def test_every_scheduler_setting_reaches_the_core() -> None:
    changed = Scheduler(
        policy="max-weight",
        order="fifo",
        admission="downgrade",
        promise_ms=5000,
        max_queued=77,
        max_running=33,
        max_replicas=9,
        max_hold_ms=70,
        hold_quality_gap=0.2,
        promise_take_cap=0.5,
        lower_band_share=0.1,
        bands=2,
        max_tenants=5,
        tenant_quantum_ms=125,
        eta_quantile_factor=2.0,
        learns_service=False,
        share_floor=0.1,
        share_step=0.75,
        share_hysteresis=0.001,
        boost_share=0.9,
        collation="exhaustive",
        collation_max_wait_ms=90_000.0,
        weights=Weights(quality=2.0, cost=0.25, deadline=3.0, affinity=0.125),
    )
    native, _ = native_config(dataclasses.replace(one_model(), scheduler=changed))
    for field in dataclasses.fields(Scheduler):
        if field.name in OF_THE_RUNTIME:
            continue
        value = getattr(changed, field.name)
        assert value != field.default, f"{field.name} is not tested"
        in_share = SHARE_NAMES.get(field.name)
        assert plain(getattr(native.share, in_share) if in_share else getattr(native, field.name)) == value


def test_models_that_name_one_device_share_it_and_others_have_their_own() -> None:
    config = Config(
        models=(
            Model("a", 0.5, device="gpu"),
            Model("b", 0.5),
            Model("c", 0.5, device="gpu"),
            Model("d", 0.5, device="parts"),
            Model("e", 0.5, device="parts"),
        ),
        devices=(Device("unused"), Device("gpu", prefill_budget=0.5), Device("parts", colocation="exclusive")),
    )
    native, names = native_config(config)
    assert [model["device"] for model in native.models] == [0, 1, 0, 2, 3]
    assert [device["is_shared"] for device in native.devices] == [True, False, False, False]
    assert native.devices[0]["prefill_budget"] == 0.5
    assert names.models == ("a", "b", "c", "d", "e")
    assert names.devices == ("gpu", "b", "parts", "parts")


def test_the_default_fleet_gets_measured_times_and_the_memory_of_its_device() -> None:
    native, names = native_config(default_fleet())
    engines = [("qwen2.5-7b", 1), ("llama-3.1-8b", 1), ("qwen2.5-14b", 1)]
    kind = "h200-sxm-141gb"
    expected = engine_tables.kv_tokens_on_device(kind, engines)
    assert tuple(replica["kv_tokens"] for replica in native.replicas) == expected
    for model, (engine, tp) in zip(native.models, engines, strict=True):
        measured = engine_tables.service_model(kind, engine, tp)
        native_measured = _core.ServiceModel(**dataclasses.asdict(measured))
        assert model["service"].prefill_s(1000) == native_measured.prefill_s(1000)
        assert model["service"].work_s(1000, 200) == native_measured.work_s(1000, 200)
    assert names.replicas == ("small-0", "mid-0", "large-0")


def test_given_service_models_and_kv_tokens_win_over_priors() -> None:
    config = Config(models=(Model("m", 0.5, replicas=(Replica("r", kv_tokens=4096),)),))
    native, _ = native_config(config, service_models={"m": SERVICE})
    assert native.models[0]["service"].prefill_s(100) == pytest.approx(0.011)
    assert native.replicas[0]["kv_tokens"] == 4096


def test_a_service_model_for_an_unknown_model_is_refused_with_the_known_names() -> None:
    with pytest.raises(ConfigError, match=r"service_models has 'n', which is no model; models are m"):
        native_config(one_model(), service_models={"n": SERVICE})


def test_a_configuration_without_models_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"name at least one zeta\.Model"):
        native_config(Config())


def test_weights_that_do_not_fit_their_device_are_refused_by_name() -> None:
    models = tuple(
        Model(name, 0.5, device="gpu0", engine_model="qwen2.5-32b", replicas=(Replica(f"{name}-0"),)) for name in "abc"
    )
    fleet = Config(models=models, devices=(Device("gpu0", kind="h200-sxm-141gb"),))
    with pytest.raises(ConfigError, match=r"a-0, b-0, c-0: their weights leave no KV memory on h200-sxm-141gb"):
        native_config(fleet)
    swapped = dataclasses.replace(fleet, devices=(Device("gpu0", kind="h200-sxm-141gb", colocation="swap"),))
    native, _ = native_config(swapped)
    assert min(replica["kv_tokens"] for replica in native.replicas) > 100_000


def test_a_swap_device_says_what_a_change_costs_and_whether_loads_are_confirmed() -> None:
    models = tuple(Model(name, 0.5, device="gpu0", replicas=(Replica(f"{name}-0"),)) for name in "ab")
    fleet = Config(models=models, devices=(Device("gpu0", colocation="swap", swap_s=35.0),))
    for awaits in (False, True):
        (device,) = native_config(fleet, awaits_loads=awaits)[0].devices
        assert (device["is_swapped"], device["swap_s"], device["awaits_load"]) == (True, 35.0, awaits)


def test_tenant_weights_follow_the_nameless_tenant() -> None:
    config = dataclasses.replace(one_model(), tenants=(Tenant("acme", 2.0), Tenant("b", 0.5)))
    native, names = native_config(config)
    assert native.tenant_weights == [1.0, 2.0, 0.5]
    assert names.tenants == ("acme", "b")


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("qwen2.5-14b", 14.0),
        ("Llama-3.1-8B-Instruct", 8.0),
        ("qwen2.5-0.5b", 0.5),
        ("mixtral-8x7b", 56.0),
        ("gpt-4", None),
        ("large", None),
        ("b2b", None),
    ],
)
def test_the_size_of_a_model_is_read_from_its_name(name: str, size: float | None) -> None:
    assert billion_parameters(name) == size


@pytest.mark.parametrize("model", ["qwen2.5-7b", "llama-3.1-8b", "qwen2.5-14b", "qwen2.5-32b"])
def test_the_generic_prior_is_near_what_was_measured_on_an_h100(model: str) -> None:
    measured = engine_tables.service_model("h100-sxm-80gb", model)
    prior = service_prior(None, model)
    for name in ("prefill_base_s", "prefill_per_token_s", "decode_base_s"):
        assert getattr(prior, name) == pytest.approx(getattr(measured, name), rel=0.25)
    for name in ("decode_per_sequence_s", "prefill_per_token2_s"):
        assert getattr(prior, name) == pytest.approx(getattr(measured, name), rel=0.5)
