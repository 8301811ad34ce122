"""From the settings that people write to the ones that the core is built from. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from zeta._core import SchedulerConfig, SharePolicyConfig, SuitabilityWeights
from zeta._core import ServiceModel as NativeServiceModel
from zeta.config import Config, Device, Model, Scheduler
from zeta.engine_tables import ServiceModel
from zeta.errors import ConfigError
from zeta.scheduler._priors import kv_tokens, service_prior

__all__ = ["DEFAULT_KV_TOKENS", "Names", "native_config", "resolve"]

DEFAULT_KV_TOKENS = 1 << 20  # as in sched/config.hpp: generous, so that the window binds first
_NO_CONTEXT_LIMIT = 0xFFFF_FFFF


@dataclasses.dataclass(frozen=True, slots=True)
class Names:
    """What the core's numbers are called: the i-th name belongs to number i.

    Attributes
    ----------
    models, devices : tuple of str
        A device of one model that named none is called after the model.
    replicas : tuple of str
        In the order of their models.
    urls : tuple of (str or None)
        Of the replicas.
    tenants : tuple of str
        Those of the configuration; number 0 is the nameless tenant, so the first of these is 1.
    """

    models: tuple[str, ...]
    devices: tuple[str, ...]
    replicas: tuple[str, ...]
    urls: tuple[str | None, ...]
    tenants: tuple[str, ...]


def resolve(
    config: Config, service_models: Mapping[str, ServiceModel] | None = None
) -> tuple[Config, dict[str, ServiceModel]]:
    """`config` with every replica's ``kv_tokens`` filled in, and the service model of each model by its name.

    Parameters
    ----------
    config : Config
        With at least one model.
    service_models : mapping of str to ServiceModel, optional
        Those that are already known, by the model's name; the others are priors.

    Raises
    ------
    ConfigError
        If a service model is given for a model that does not exist, or weights do not fit their device.
    """
    given = dict(service_models or {})
    for name in given.keys() - {model.name for model in config.models}:
        known = ", ".join(model.name for model in config.models)
        raise ConfigError(
            f"service_models has {name!r}, which is no model; models are {known}", "service_models", name, known
        )
    devices = {device.name: device for device in config.devices}
    capacity: dict[str, int] = {}
    services: dict[str, ServiceModel] = {}
    by_device: dict[str, list[tuple[str, str, int]]] = {}
    for model in config.models:
        kind = _kind(model, devices)
        services[model.name] = given.get(model.name) or service_prior(kind, model.engine_model or model.name, model.tp)
        if model.device is not None:
            by_device.setdefault(model.device, []).extend(
                (replica.name, model.engine_model or model.name, model.tp)
                for replica in model.replicas
                if replica.kv_tokens is None
            )
    for name, replicas in by_device.items():
        capacity |= kv_tokens(devices[name].kind, replicas, alone=devices[name].colocation == "swap")
    models = tuple(
        dataclasses.replace(
            model,
            replicas=tuple(
                dataclasses.replace(
                    replica, kv_tokens=replica.kv_tokens or capacity.get(replica.name, DEFAULT_KV_TOKENS)
                )
                for replica in model.replicas
            ),
        )
        for model in config.models
    )
    return dataclasses.replace(config, models=models), services


def native_config(
    config: Config, *, service_models: Mapping[str, ServiceModel] | None = None, awaits_loads: bool = False
) -> tuple[SchedulerConfig, Names]:
    """What the core is built from, and what its numbers are called.

    Devices that no model uses are left out. Models that name no device, and those of an ``exclusive`` one, contend
    with nobody: no share and no budget applies to them.

    Parameters
    ----------
    config : Config
        With at least one model; replicas can join later.
    service_models : mapping of str to ServiceModel, optional
        Predicted engine times by the model's name, for those whose prior is not to be used.
    awaits_loads : bool, default False
        Whether somebody confirms each load on every ``swap`` device. False: on those that say so (``awaits_load``);
        elsewhere a model's first request loads it.

    Returns
    -------
    native : zeta._core.SchedulerConfig
    names : Names

    Raises
    ------
    ConfigError
        If there is no model, a service model is given for one that does not exist, or weights do not fit their device.
    """
    if not config.models:
        raise ConfigError("models: none given; name at least one zeta.Model", "models", (), "at least one")
    config, services = resolve(config, service_models)
    settings = config.scheduler
    native = SchedulerConfig(
        order=settings.order,
        admission=settings.admission,
        share=_share_config(settings),
        max_queued=settings.max_queued,
        max_running=settings.max_running,
        max_tenants=settings.max_tenants,
        max_replicas=settings.max_replicas,
        bands=settings.bands,
        promise_ms=settings.promise_ms,
        promise_take_cap=settings.promise_take_cap,
        lower_band_share=settings.lower_band_share,
        max_hold_ms=settings.max_hold_ms,
        hold_quality_gap=settings.hold_quality_gap,
        tenant_quantum_ms=settings.tenant_quantum_ms,
        eta_quantile_factor=settings.eta_quantile_factor,
        learns_service=settings.learns_service,
        tenant_weights=[1.0, *(tenant.weight for tenant in config.tenants)],
        weights=SuitabilityWeights(**dataclasses.asdict(settings.weights)),
        collation=settings.collation,
        collation_max_wait_ms=settings.collation_max_wait_ms,
    )
    numbers = _add_devices(native, config, awaits_loads)
    replicas = []
    for model_number, model in enumerate(config.models):
        native.add_model(
            quality=model.quality,
            service=NativeServiceModel(**dataclasses.asdict(services[model.name])),
            device=numbers[model.name],
            max_context_tokens=model.max_context_tokens or _NO_CONTEXT_LIMIT,
            tpot_slo_ms=model.tpot_slo_ms,
            mean_output_tokens=model.mean_output_tokens,
        )
        for replica in model.replicas:
            native.add_replica(
                model=model_number,
                max_in_flight=replica.max_in_flight,
                max_batch=replica.max_batch,
                kv_tokens=replica.kv_tokens or DEFAULT_KV_TOKENS,
            )
            replicas.append(replica)
    by_number = {number: model.device or model.name for model in config.models for number in [numbers[model.name]]}
    names = Names(
        models=tuple(model.name for model in config.models),
        devices=tuple(by_number[number] for number in range(len(by_number))),
        replicas=tuple(replica.name for replica in replicas),
        urls=tuple(replica.url for replica in replicas),
        tenants=tuple(tenant.name for tenant in config.tenants),
    )
    return native, names


def _kind(model: Model, devices: Mapping[str, Device]) -> str | None:
    return None if model.device is None else devices[model.device].kind


def _share_config(settings: Scheduler) -> SharePolicyConfig:
    return SharePolicyConfig(
        policy=settings.policy,
        floor=settings.share_floor,
        max_step=settings.share_step,
        hysteresis=settings.share_hysteresis,
        boost_share=settings.boost_share,
    )


def _add_devices(native: SchedulerConfig, config: Config, awaits_loads: bool) -> dict[str, int]:
    """Adds the devices in the order of the models that use them; the number of each model's device."""
    devices = {device.name: device for device in config.devices}
    shared: dict[str, int] = {}
    numbers = {}
    for model in config.models:
        device = None if model.device is None else devices[model.device]
        if device is None or device.colocation == "exclusive":
            numbers[model.name] = native.add_device(is_shared=False)
        elif device.name in shared:
            numbers[model.name] = shared[device.name]
        else:
            number = native.add_device(
                is_shared=True,
                prefill_budget=device.prefill_budget,
                is_swapped=device.colocation == "swap",
                swap_s=device.swap_s,
                awaits_load=awaits_loads or device.awaits_load,
            )
            numbers[model.name] = shared[device.name] = number
    return numbers
