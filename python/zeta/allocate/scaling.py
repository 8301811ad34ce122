"""How many replicas a model should have: the slow half of the allocation loop, as a pure function.

A replica that is asked for now serves after its start-up, so the decision is about the load of that time: a high
quantile of the work that is expected until then. Leaving is cheap to undo only slowly, so replicas go one at a time,
after a while in which fewer would have done.
"""

from __future__ import annotations

import dataclasses
import math

from zeta.allocate.loop import LoadForecast
from zeta.errors import ConfigError

__all__ = ["ModelLoad", "Scaling", "ScalingConfig", "scale"]


@dataclasses.dataclass(frozen=True, slots=True)
class ScalingConfig:
    """The numbers of `scale`.

    Parameters
    ----------
    start_up_s : float
        From asking for a replica to its first request, as measured; the lead time of every decision.
    work_per_replica : float
        GPU-seconds of predicted work that one replica does per second at the quality of service that is promised.
    min_replicas, max_replicas : int
        Bounds of the target.
    quantile : float
        Of the mean work over the lead time and `acts_s` beyond it, which replicas are to carry; in (0, 1).
    headroom : float
        Part of a replica's capacity that is planned with, in (0, 1]: bursts shorter than the forecast's windows live in
        the rest.
    acts_s : float
        Time beyond the lead time that a decision is made for.
    clears_s : float
        Time over which waiting work should go.
    scale_in_after_s : float
        A replica goes only when fewer have been enough at every decision for this long.
    cool_down_s : float
        Least time between two replicas that go, and from the last one that came to the first that goes.

    Raises
    ------
    ConfigError
        If a number is out of its range.
    """

    start_up_s: float
    work_per_replica: float = 1.0
    min_replicas: int = 1
    max_replicas: int = 64
    quantile: float = 0.9
    headroom: float = 0.8
    acts_s: float = 60.0
    clears_s: float = 30.0
    scale_in_after_s: float = 120.0
    cool_down_s: float = 60.0

    def __post_init__(self) -> None:
        for key, holds, allowed in (
            ("start_up_s", 0 <= self.start_up_s <= 86_400, "0 to 86400 s"),
            ("work_per_replica", 0 < self.work_per_replica < 1e6, "more than 0"),
            ("min_replicas", 0 <= self.min_replicas <= self.max_replicas, "0 to max_replicas"),
            ("max_replicas", 1 <= self.max_replicas <= 4096, "1 to 4096"),
            ("quantile", 0 < self.quantile < 1, "between 0 and 1"),
            ("headroom", 0 < self.headroom <= 1, "above 0, at most 1"),
            ("acts_s", 0 < self.acts_s <= 86_400, "more than 0 s"),
            ("clears_s", 0 < self.clears_s <= 86_400, "more than 0 s"),
            ("scale_in_after_s", 0 <= self.scale_in_after_s <= 86_400, "0 to 86400 s"),
            ("cool_down_s", 0 <= self.cool_down_s <= 86_400, "0 to 86400 s"),
        ):
            if not holds:
                value = getattr(self, key)
                raise ConfigError(f"{key} = {value!r}; expected {allowed}", key, value, allowed)


@dataclasses.dataclass(frozen=True, slots=True)
class ModelLoad:
    """What one decision about a model is made from.

    Parameters
    ----------
    model : str
        Its name.
    now_s : float
        The present, on any clock that does not go back.
    replicas : int
        In service or starting; those that drain do not count.
    recent_work : float
        GPU-seconds of predicted work per second that arrived lately (say in the last minute): what is planned with
        where there is no forecast.
    backlog_work_s : float
        Waiting work in GPU-seconds.
    starting_in_s : tuple of float
        Of those of `replicas` that start: seconds until each serves.
    """

    model: str
    now_s: float
    replicas: int
    recent_work: float
    backlog_work_s: float = 0.0
    starting_in_s: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Scaling:
    """One decision; hand it to the next.

    Parameters
    ----------
    target : int
        Replicas to have, started ones included.
    wanted : int
        What the load at the lead time asks for, before anything slows a decrease.
    reason : str
        ``forecast`` or ``recent`` (what the work was read from) raised or kept it; ``scale-in``: one goes; ``held``:
        fewer would do, but not for long enough; ``bounds``: the least or the most there may be.
    """

    target: int
    wanted: int
    reason: str
    _enough: tuple[tuple[float, int], ...] = dataclasses.field(default=(), repr=False)
    _changed_s: float = dataclasses.field(default=-math.inf, repr=False)


def scale(config: ScalingConfig, load: ModelLoad, forecast: LoadForecast | None, previous: Scaling | None) -> Scaling:
    """The next target for one model's replicas.

    Parameters
    ----------
    config : ScalingConfig
    load : ModelLoad
    forecast : LoadForecast or None
        Asked for the quantile of the work over the lead time and beyond; where it answers None, `load.recent_work`
        stands in.
    previous : Scaling or None
        The last decision for this model.

    Returns
    -------
    Scaling
        Increases act at once; one replica goes at a time.

    Notes
    -----
    Pure, thread-safe. The work to carry is the quantile of the mean over (0, L + acts_s], L being the lead time, plus
    what the medians say the last acts_s of it bring beyond that mean: a rising load is met where it will stand, a
    falling one is carried until it has fallen. Waiting work counts as far as it will still wait at L: what the replicas
    that serve, and those that start, do until then is not ordered again (Smith, 1957). Without a forecast nobody knows
    that, and all of it counts.
    """
    expected = _at_lead(config, load, forecast)
    source = "recent" if expected is None else "forecast"
    pace, waiting_s = expected or (load.recent_work, load.backlog_work_s)
    carried = config.work_per_replica * config.headroom
    waits = waiting_s / config.clears_s
    wanted = math.ceil((pace + waits) / carried - 1e-9)
    bounded = min(max(wanted, config.min_replicas), config.max_replicas)

    since = load.now_s - config.scale_in_after_s
    before = previous._enough if previous is not None else ()
    changed_s = previous._changed_s if previous is not None else load.now_s
    # Falling from old to new: the first is the most that was wanted lately.
    enough = (*((at, n) for at, n in before if at >= since and n > bounded), (load.now_s, bounded))
    if bounded > load.replicas:
        reason = source if bounded == wanted else "bounds"
        return Scaling(bounded, wanted, reason, enough, load.now_s)
    most_lately = enough[0][1]
    if most_lately < load.replicas and load.now_s - changed_s >= max(config.cool_down_s, 0.0):
        return Scaling(load.replicas - 1, wanted, "scale-in", enough, load.now_s)
    reason = "held" if bounded < load.replicas else source if bounded == wanted else "bounds"
    return Scaling(load.replicas, wanted, reason, enough, changed_s)


def _at_lead(config: ScalingConfig, load: ModelLoad, forecast: LoadForecast | None) -> tuple[float, float] | None:
    """The work per second that replicas asked for now should carry, and what waits when they come; None: unknown."""
    if forecast is None:
        return None
    lead_s, until_s = config.start_up_s, config.start_up_s + config.acts_s
    high = forecast.work_pace(load.model, until_s, config.quantile)
    middle = forecast.work_pace(load.model, until_s, 0.5)
    before = forecast.work_pace(load.model, lead_s, 0.5) if lead_s > 0 else 0.0
    if high is None or middle is None or before is None or not math.isfinite(high + middle + before):
        return None
    after = (middle * until_s - before * lead_s) / config.acts_s
    serving_s = (load.replicas - len(load.starting_in_s)) * lead_s
    serving_s += sum(max(lead_s - ready_s, 0.0) for ready_s in load.starting_in_s)
    waiting_s = load.backlog_work_s + before * lead_s - config.work_per_replica * serving_s
    return max(high, 0.0) + max(after - middle, 0.0), max(waiting_s, 0.0)
