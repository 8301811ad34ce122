"""What a simulated engine imitates: a model on a kind of device from the measured step times, or fixed times."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Final

from zeta._core import EngineSpec
from zeta.engine_tables import kv_tokens_on_device, models_on, step_table
from zeta.errors import ConfigError

__all__ = ["DEFAULT_KIND", "Profile"]

DEFAULT_KIND: Final = "h200-sxm-141gb"
_MAX_WAITING: Final = 65_536


@dataclasses.dataclass(frozen=True, slots=True)
class Profile:
    """One kind of simulated engine.

    Parameters
    ----------
    name : str
        As it was asked for.
    model : str or None
        Of the step times, such as ``qwen2.5-7b``; None where times are fixed.
    device_kind : str or None
        Such as ``h200-sxm-141gb``.
    tp : int
        GPUs that the model is spread over.
    ttft_ms, tpot_ms : float or None
        Fixed times, whatever the load.
    kv_tokens : int
        KV capacity, in tokens.
    max_batch : int
        Sequences in a step.
    max_batched_tokens : int
        Tokens in a step; longer prompts are read in pieces.
    """

    name: str
    model: str | None
    device_kind: str | None
    tp: int
    ttft_ms: float | None
    tpot_ms: float | None
    kv_tokens: int
    max_batch: int
    max_batched_tokens: int

    @classmethod
    def parse(
        cls,
        name: str,
        *,
        kv_tokens: int | None = None,
        max_batch: int | None = None,
        max_batched_tokens: int = 2048,
        tp: int = 1,
    ) -> Profile:
        """From ``MODEL``, ``MODEL@DEVICE_KIND`` or ``fixed:TTFT_MS:TPOT_MS``.

        Parameters
        ----------
        name : str
        kv_tokens : int, optional
            None: what the device has left beside the model's weights, were it there alone.
        max_batch : int, optional
            None: 256, and unbounded for fixed times.
        max_batched_tokens : int
            vLLM's chunk for online serving.
        tp : int
            GPUs that the model is spread over.

        Raises
        ------
        ConfigError
            If there are no step times for it, or a number is out of range.
        """
        if name.startswith("fixed:"):
            ttft_ms, tpot_ms = _fixed_times(name)
            return cls(
                name, None, None, 1, ttft_ms, tpot_ms, kv_tokens or 1 << 40, max_batch or 1 << 30, max_batched_tokens
            )
        model, _, kind = name.partition("@")
        kind = kind or DEFAULT_KIND
        if (model, tp) not in models_on(kind):
            names = ", ".join(f"{each} (tp {size})" for each, size in models_on(kind))
            raise ConfigError(
                f"there is no profile {name!r} with tp {tp}; expected fixed:TTFT_MS:TPOT_MS, or on {kind} one of "
                f"{names}",
                "profile",
                name,
                names,
            )
        (room,) = kv_tokens_on_device(kind, [(model, tp)])
        kv_tokens = kv_tokens or room
        if kv_tokens <= 0:
            raise ConfigError(
                f"{model} with tp {tp} leaves no KV memory on {kind}; give more GPUs (--tp) or kv_tokens",
                "profile",
                name,
            )
        return cls(name, model, kind, tp, None, None, kv_tokens, max_batch or 256, max_batched_tokens)

    @property
    def short_name(self) -> str:
        """The model, or ``fixed``."""
        return self.model or "fixed"

    def engine_spec(self) -> EngineSpec:
        """For the core's engine model.

        Raises
        ------
        ConfigError
            If the limits allow no step.
        """
        if self.model is None or self.device_kind is None:
            raise ValueError(f"{self.name} has fixed times, no step table")
        if self.max_batched_tokens < self.max_batch:
            raise ConfigError(
                f"max_batched_tokens is {self.max_batched_tokens}; expected at least max_batch, {self.max_batch}",
                "max_batched_tokens",
                self.max_batched_tokens,
            )
        return EngineSpec(
            step_table(self.device_kind, self.model, self.tp),
            kv_tokens=self.kv_tokens,
            max_batched_tokens=self.max_batched_tokens,
            max_sequences=self.max_batch,
            max_waiting=_MAX_WAITING,
        )


def _fixed_times(name: str) -> tuple[float, float]:
    found = re.fullmatch(r"fixed:([0-9.]+):([0-9.]+)", name)
    try:
        ttft_ms, tpot_ms = (float(each) for each in found.groups()) if found else (math.nan, math.nan)
    except ValueError:
        ttft_ms = tpot_ms = math.nan
    if not (0 <= ttft_ms < 1e9 and 0 <= tpot_ms < 1e9):
        raise ConfigError(f"profile is {name!r}; expected fixed:TTFT_MS:TPOT_MS, such as fixed:50:10", "profile", name)
    return ttft_ms, tpot_ms
