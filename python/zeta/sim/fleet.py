"""From a configuration to simulated devices beside the real scheduler. Pure."""

from __future__ import annotations

import dataclasses

import numpy as np

from zeta._core import EngineSpec, SchedulerConfig, StepTable
from zeta.config import Config, Device, Model
from zeta.engine_tables import ServiceModel, engine_memory, serving_constants, step_table
from zeta.errors import ConfigError
from zeta.scheduler import Names, native_config, resolve
from zeta.sim.workload import FloatArray, Workload

__all__ = ["SimulatedFleet", "build_fleet"]


@dataclasses.dataclass(frozen=True, slots=True)
class SimulatedFleet:
    """What a replay runs on.

    Attributes
    ----------
    names : Names
        Of the core's numbers.
    service_models : tuple of ServiceModel
        Predicted times by model, as the scheduler knows them.
    devices : list of (str, list of EngineSpec)
        Colocation and engines of each simulated device.
    places : list of (int, int)
        Device and engine of each replica, in the order of the scheduler's replicas.
    capacity_gpus : int
        GPU-seconds that the fleet has in a second.
    """

    names: Names
    service_models: tuple[ServiceModel, ...]
    devices: list[tuple[str, list[EngineSpec]]]
    places: list[tuple[int, int]]
    capacity_gpus: int

    def predicted_work_s(self, workload: Workload) -> FloatArray:
        """GPU-seconds that each request takes on its required model, were its output length known in advance."""
        prompt = workload.prompt_tokens.astype(np.float64)
        output = workload.output_tokens.astype(np.float64)
        work = np.zeros(len(workload))
        for index, service in enumerate(self.service_models):
            on = workload.required_model == index
            p, o = prompt[on], output[on]
            per_token = (
                service.decode_base_s / service.reference_batch
                + service.decode_per_sequence_s
                + service.decode_per_context_token_s * (p + 0.5 * o)
            )
            prefill = service.prefill_base_s + p * (service.prefill_per_token_s + p * service.prefill_per_token2_s)
            work[on] = prefill + o * per_token
        return work


def build_fleet(config: Config) -> SimulatedFleet:
    """Simulated engines for every replica of `config`.

    Models that name the same device share it as its colocation says; a model without one, or on an ``exclusive``
    device, has a device of its own for each replica.

    Raises
    ------
    ConfigError
        If a model has no replica or its device no kind, or there are no step times for them.
    """
    devices = {device.name: device for device in config.devices}
    resolved, services = resolve(config)
    _, names = native_config(resolved)
    simulated: list[tuple[str, list[EngineSpec]]] = []
    shared: dict[str, int] = {}
    places = []
    for number, model in enumerate(resolved.models):
        if not model.replicas:
            raise ConfigError(
                f"models[{number}] ({model.name}) has no replica; the simulator needs at least one",
                f"models[{number}].replicas",
            )
        device, table = _device_and_table(number, model, devices)
        for replica in model.replicas:
            load_ns = round(1e9 * (device.swap_s if device.colocation == "swap" else 0.0))
            engine = EngineSpec(
                table,
                kv_tokens=replica.kv_tokens or 0,
                max_batched_tokens=replica.max_batched_tokens,
                max_sequences=replica.max_batch,
                load_delay_ns=load_ns,
            )
            if device.colocation == "exclusive":
                simulated.append(("exclusive", [engine]))
                places.append((len(simulated) - 1, 0))
                continue
            at = shared.setdefault(device.name, len(simulated))
            if at == len(simulated):
                simulated.append((device.colocation, []))
            simulated[at][1].append(engine)
            places.append((at, len(simulated[at][1]) - 1))
    return SimulatedFleet(
        names, tuple(services[model.name] for model in resolved.models), simulated, places, len(simulated)
    )


def scheduler_config(config: Config) -> SchedulerConfig:
    """The core's configuration of `config`, with its priors."""
    return native_config(config, awaits_loads=True)[0]


def _device_and_table(number: int, model: Model, devices: dict[str, Device]) -> tuple[Device, StepTable]:
    device = devices.get(model.device or "")
    kind = None if device is None else device.kind
    if device is None or kind is None:
        key = f"models[{number}].device"
        raise ConfigError(
            f"{key} = {model.device!r} gives no kind of GPU; the simulator needs one: name a device whose "
            "kind is such as 'h200-sxm-141gb'",
            key,
            model.device,
        )
    engine = model.engine_model or model.name
    engine_memory(kind, engine, model.tp)  # says what exists when this does not
    return device, step_table(kind, engine, model.tp, serving_constants(kind, engine, model.tp))
