"""What a model is taken to cost before anything was measured."""

from __future__ import annotations

import re

from zeta import engine_tables
from zeta.engine_tables import ServiceModel
from zeta.errors import ConfigError

__all__ = ["DEFAULT_BILLION_PARAMETERS", "billion_parameters", "kv_tokens", "service_prior"]

DEFAULT_BILLION_PARAMETERS = 8.0


def billion_parameters(name: str) -> float | None:
    """The size in a model's name: 14 of ``qwen2.5-14b``, 56 of ``mixtral-8x7b``; None where there is none."""
    found = re.search(r"(?<![0-9a-z.])(?:(\d+)x)?(\d+(?:\.\d+)?)b(?![a-z0-9])", name.lower())
    return None if found is None else int(found[1] or 1) * float(found[2])


def _has_tables(kind: str | None, model: str, tp: int) -> bool:
    return kind is not None and kind in engine_tables.device_kinds() and (model, tp) in engine_tables.models_on(kind)


def service_prior(kind: str | None, model: str, tp: int = 1) -> ServiceModel:
    """Predicted engine times of one model, measured where the package has its step times.

    Elsewhere from its size B in billion parameters (of its name, else `DEFAULT_BILLION_PARAMETERS`) over `tp`: straight
    lines through the fits of the four dense bf16 models of 7 to 33 billion on one H100 in ``artefacts/engines``, which
    they meet within a quarter (decode, prefill per token) or a half (the small terms). Other devices, quantised or
    sparse models will be off by more; what runs corrects the lag, the window and the output lengths.
    """
    if kind is not None and _has_tables(kind, model, tp):
        return engine_tables.service_model(kind, model, tp)
    size = (billion_parameters(model) or DEFAULT_BILLION_PARAMETERS) / tp
    return ServiceModel(
        prefill_base_s=2.0e-3 + 0.59e-3 * size,
        prefill_per_token_s=2.1e-6 * size,
        prefill_per_token2_s=0.09e-9 * size,
        decode_base_s=1.0e-3 + 0.77e-3 * size,
        decode_per_sequence_s=2.0e-6 + 0.55e-6 * size,
        decode_per_context_token_s=15e-9 + 3.0e-9 * size,
    )


def kv_tokens(kind: str | None, replicas: list[tuple[str, str, int]], *, alone: bool) -> dict[str, int]:
    """KV capacity of the replicas on one device, in tokens, where its kind and all the models have measurements.

    Parameters
    ----------
    kind : str or None
        Kind of the device.
    replicas : list of (str, str, int)
        (name, engine model, tensor parallel size) of every replica there.
    alone : bool
        One model at a time is resident (``colocation = "swap"``), so each has the memory to itself.

    Raises
    ------
    ConfigError
        If the weights leave no room.
    """
    if kind is None or not replicas or not all(_has_tables(kind, model, tp) for _, model, tp in replicas):
        return {}
    engines = [(model, tp) for _, model, tp in replicas]
    if alone:
        found = [engine_tables.kv_tokens_on_device(kind, [engine])[0] for engine in engines]
    else:
        found = list(engine_tables.kv_tokens_on_device(kind, engines))
    if min(found) == 0:
        names = ", ".join(name for name, _, _ in replicas)
        raise ConfigError(
            f"replicas {names}: their weights leave no KV memory on {kind}; put fewer of them on one device, or set "
            "kv_tokens of each",
            key="models[].replicas[].kv_tokens",
            allowed="replicas that fit their device",
        )
    return {name: tokens for (name, _, _), tokens in zip(replicas, found, strict=True)}
