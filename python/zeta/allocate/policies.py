"""The allocation policies by name, and their numbers. What they do is C++ (``zeta/share/policy.hpp``)."""

from __future__ import annotations

import dataclasses

from zeta import _core
from zeta.config import Scheduler
from zeta.errors import ConfigError

__all__ = ["POLICIES", "REASONS", "PolicyConfig"]

POLICIES: tuple[str, ...] = tuple(_core.share_policies())
"""``water-fill`` (the default), ``even``, ``proportional``, ``queue-length``, ``boost``, ``max-weight``."""

REASONS: tuple[str, ...] = tuple(_core.share_reasons())
"""Why a model has its share; `ModelShare.reason` is one of these."""

_DEFAULT = _core.SharePolicyConfig()


@dataclasses.dataclass(frozen=True, slots=True)
class PolicyConfig:
    """An allocation policy and its numbers. The defaults are the core's own.

    Parameters
    ----------
    policy : str
        One of `POLICIES`.
    floor : float
        Least share of a model, 0 to 0.5; ``min(floor, 1/2n)`` is used for n models.
    max_step : float
        Most that a share moves in one tick, 0.25 to 1.
    hysteresis : float
        Smaller moves are not made; 0 to 0.005.
    boost_share : float
        Policy ``boost``: what the most backed-up model gets above 1/n, 0 to 1.
    boost_starts_work_s, boost_clears_work_s : float
        Policy ``boost``: waiting GPU-seconds that start a boost, and at which a model has cleared.
    need_memory_s : float
        Policy ``water-fill``: time constant, in seconds, of the mean of a need that only jitters.
    jitter, jump : float
        Policy ``water-fill``: relative deviation from that mean which counts as jitter; deviation beyond it, added up
        over ticks, at which the mean starts anew.

    Raises
    ------
    ConfigError
        If a number is outside its bounds or the policy is unknown.
    """

    policy: str = _DEFAULT.policy
    floor: float = _DEFAULT.floor
    max_step: float = _DEFAULT.max_step
    hysteresis: float = _DEFAULT.hysteresis
    boost_share: float = _DEFAULT.boost_share
    boost_starts_work_s: float = _DEFAULT.boost_starts_work_s
    boost_clears_work_s: float = _DEFAULT.boost_clears_work_s
    need_memory_s: float = _DEFAULT.need_memory_s
    jitter: float = _DEFAULT.jitter
    jump: float = _DEFAULT.jump
    _native: _core.SharePolicyConfig = dataclasses.field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        try:
            checked = _core.SharePolicyConfig(
                policy=self.policy,
                floor=self.floor,
                max_step=self.max_step,
                hysteresis=self.hysteresis,
                boost_share=self.boost_share,
                boost_starts_work_s=self.boost_starts_work_s,
                boost_clears_work_s=self.boost_clears_work_s,
                need_memory_s=self.need_memory_s,
                jitter=self.jitter,
                jump=self.jump,
            )
        except ValueError as error:
            raise ConfigError(f"{error} (given: {self})") from error
        object.__setattr__(self, "_native", checked)

    @classmethod
    def from_settings(cls, scheduler: Scheduler) -> PolicyConfig:
        """The policy that a ``[scheduler]`` section asks for."""
        return cls(
            policy=scheduler.policy,
            floor=scheduler.share_floor,
            max_step=scheduler.share_step,
            hysteresis=scheduler.share_hysteresis,
            boost_share=scheduler.boost_share,
        )
