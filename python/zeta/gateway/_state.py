"""The state document: what the dashboard and ``zeta top`` show, and the last ten minutes of it, a point a second."""

from __future__ import annotations

import collections
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from zeta._version import __version__
from zeta.clock import Clock, SteadyClock
from zeta.gateway._observed import RECENT_S, class_name
from zeta.gateway._view import GatewayView, ReplicaView
from zeta.monitor import Kind, fields_of

__all__ = ["HISTORY_S", "State"]

HISTORY_S: Final = 600
"""How far back the document reaches."""

FORECAST_S: Final = 60
"""The horizon of the forecast that is shown."""

_SECOND_NS: Final = 1_000_000_000
_FRESH_NS: Final = _SECOND_NS * 9 // 10
_DECISIONS: Final = 50
_DECISION_KEYS: Final = (
    "time_s",
    "request_id",
    "model",
    "replica",
    "priority",
    "queued_ms",
    "slack_ms",
    "reason",
    "scores",
    "waited_for",
    "had_affinity",
    "predicted_prefill_ms",
    "predicted_work_ms",
)
_SERIES: Final = (
    "share",
    "need",
    "waiting_by_class",
    "running",
    "replicas",
    "arrivals_rps",
    "work",
    "forecast_p50",
    "forecast_p90",
    "forecast_p99",
    "ttft_p50_ms",
    "ttft_p90_ms",
    "ttft_p99_ms",
    "tpot_p50_ms",
    "tpot_p90_ms",
    "tpot_p99_ms",
    "attainment",
)

Json = dict[str, Any]


class State:
    """Looks at a gateway once a second and remembers.

    Parameters
    ----------
    gateway : GatewayView
    clock : zeta.clock.Clock, optional
        Monotonic; the machine's by default.
    wall_s : callable, optional
        Unix time in seconds; asked once, at the start.

    Notes
    -----
    Belongs to the event loop's thread. However many ask, the router is looked at once a second.
    """

    def __init__(
        self, gateway: GatewayView, clock: Clock | None = None, wall_s: Callable[[], float] = time.time
    ) -> None:
        self._gateway = gateway
        self._clock = SteadyClock() if clock is None else clock
        self._started_ns = self._clock.now_ns()
        self._started_s = wall_s()
        self._sampled_ns: int | None = None
        self._now: Json = {}
        self._history: collections.deque[Json] = collections.deque(maxlen=HISTORY_S)
        # By model, what has arrived since the start: (when, requests, work), over the forecast's horizon.
        self._arrived: collections.deque[tuple[int, dict[str, tuple[int, float]]]] = collections.deque()

    def sample(self) -> None:
        """Looks, and adds a point to the history. To be called once a second."""
        now_ns = self._clock.now_ns()
        gateway = self._gateway
        gateway.observed.advance(now_ns)
        stats = gateway.router.stats()
        self._note_arrivals(now_ns, stats["models"])
        self._sampled_ns = now_ns
        replicas = gateway.replicas()
        models = [self._model(name, row, stats, replicas) for name, row in stats["models"].items()]
        time_s = self._started_s + (now_ns - self._started_ns) / _SECOND_NS
        self._now = {
            "time_s": round(time_s, 3),
            "uptime_s": round((now_ns - self._started_ns) / _SECOND_NS, 3),
            "version": __version__,
            "is_draining": gateway.is_draining,
            "classes": [class_name(at, gateway.observed.classes) for at in range(gateway.observed.classes)],
            "recent_s": RECENT_S,
            "submitted": stats["submitted"],
            "waiting": stats["waiting"],
            "running": stats["running"],
            "attainment": _rounded(gateway.observed.attainment()),
            "outcomes": stats["outcomes"],
            "models": models,
            "loop": _loop(stats["loop"]),
        }
        self._history.append({"time_s": self._now["time_s"], "models": [_point(model) for model in models]})

    def document(self, *, is_admin: bool, since_s: float | None = None) -> Json:
        """What is so now, at most a second old.

        Parameters
        ----------
        is_admin : bool
            Whether addresses, errors of replicas and tenants may be seen.
        since_s : float, optional
            With the history's points after this time, in Unix seconds (0: all); without history by default.

        Returns
        -------
        dict
            Plain values for JSON. What is unknown is None.
        """
        now_ns = self._clock.now_ns()
        if self._sampled_ns is None or now_ns - self._sampled_ns > _FRESH_NS:
            self.sample()
        gateway = self._gateway
        found = {
            **self._now,
            "replicas": [_replica(each, is_admin) for each in gateway.replicas()],
            "readings": [] if gateway.monitor is None else _readings(gateway),
            "refusals": [
                {"status": status, "reason": reason, "count": count}
                for (status, reason), count in gateway.observed.refusals().items()
            ],
            "decisions": [_decision(each) for each in gateway.recent_decisions(_DECISIONS)],
        }
        if is_admin:
            found["tenants"] = [
                {"name": name, "ended": ended, "judged": judged, "met_slo": met}
                for name, (ended, judged, met) in gateway.observed.tenants().items()
            ]
        if since_s is not None:
            found["history"] = self._since(since_s)
        return found

    def _since(self, since_s: float) -> Json:
        """As columns: times, and per model a list for each series."""
        points = [point for point in self._history if point["time_s"] > since_s]
        names = [model["name"] for model in self._now["models"]]
        return {
            "time_s": [point["time_s"] for point in points],
            "models": {
                name: {series: [point["models"][at][series] for point in points] for series in _SERIES}
                for at, name in enumerate(names)
            },
        }

    def _note_arrivals(self, now_ns: int, models: Mapping[str, Mapping[str, Any]]) -> None:
        seen = {name: (row["arrivals"], row["arrived_work_s"]) for name, row in models.items()}
        self._arrived.append((now_ns, seen))
        while len(self._arrived) > 1 and now_ns - self._arrived[1][0] >= FORECAST_S * _SECOND_NS:
            self._arrived.popleft()

    def _rates(self, name: str) -> tuple[float | None, float | None]:
        """Requests per second over the last seconds, and work per second over the forecast's horizon."""
        newest_ns, newest = self._arrived[-1]
        oldest_ns, oldest = self._arrived[0]
        lately_ns, lately = next(
            (each for each in reversed(self._arrived) if newest_ns - each[0] >= 5 * _SECOND_NS), self._arrived[0]
        )
        arrivals = work = None
        if newest_ns - lately_ns >= _SECOND_NS // 2:
            arrivals = (newest[name][0] - lately[name][0]) / ((newest_ns - lately_ns) / _SECOND_NS)
        if newest_ns - oldest_ns >= (FORECAST_S - 2) * _SECOND_NS:
            work = (newest[name][1] - oldest[name][1]) / ((newest_ns - oldest_ns) / _SECOND_NS)
        return arrivals, work

    def _model(
        self, name: str, row: Mapping[str, Any], stats: Mapping[str, Any], replicas: Sequence[ReplicaView]
    ) -> Json:
        observed = self._gateway.observed
        arrivals_rps, work = self._rates(name)
        ready = sum(
            each.model == name and each.is_healthy and not each.is_ejected and not each.is_draining for each in replicas
        )
        return {
            "name": name,
            "share": _rounded(row["share"]),
            "need": _rounded(row["need"]),
            "waiting": row["waiting"],
            "waiting_by_class": list(row["waiting_by_class"][: observed.classes]),
            "running": row["running"],
            "replicas": ready,
            "backlog_s": _rounded(row["backlog_s"]),
            "arrivals_rps": _rounded(arrivals_rps),
            "work": _rounded(work),
            "forecast": _forecast(stats["loop"]["models"].get(name)),
            "ttft_ms": _percentiles(observed.ttft.percentiles_ms(observed.row(name), 0.5, 0.9, 0.99)),
            "tpot_ms": _percentiles(observed.tpot.percentiles_ms(observed.row(name), 0.5, 0.9, 0.99)),
            "attainment": _rounded(observed.attainment(name)),
        }


def _forecast(row: Mapping[str, Any] | None) -> Json | None:
    """Work expected over the next minute, in seconds of device time per second; None: unknown."""
    if row is None or row["work_60s_p50"] is None:
        return None
    return {"horizon_s": FORECAST_S} | {name: _rounded(row[f"work_60s_{name}"]) for name in ("p50", "p90", "p99")}


def _percentiles(values: tuple[float, ...] | None) -> Json | None:
    return None if values is None else dict(zip(("p50", "p90", "p99"), map(_rounded, values), strict=True))


def _point(model: Mapping[str, Any]) -> Json:
    """A model in the history: flat, so that the columns are lists of numbers."""
    point = {series: model[series] for series in _SERIES if series in model}
    for group, unit in (("forecast", ""), ("ttft_ms", "_ms"), ("tpot_ms", "_ms")):
        of = model[group]
        for name in ("p50", "p90", "p99"):
            point[f"{group.removesuffix(unit)}_{name}{unit}"] = None if of is None else of[name]
    return point


def _replica(replica: ReplicaView, is_admin: bool) -> Json:
    found = {
        "name": replica.name,
        "model": replica.model,
        "is_healthy": replica.is_healthy,
        "is_ejected": replica.is_ejected,
        "is_draining": replica.is_draining,
        "in_flight": replica.in_flight,
        "failures": replica.failures,
        "since_s": _rounded(replica.since_s),
    }
    if is_admin:
        found |= {"url": replica.url, "last_error": replica.last_error}
    return found


def _readings(gateway: GatewayView) -> list[Json]:
    assert gateway.monitor is not None
    snapshot = gateway.monitor.snapshot()
    rows: list[tuple[Kind, str, Any]] = [(Kind.HOST, "host", snapshot.host)]
    rows += [(Kind.DEVICE, key, row) for key, row in snapshot.devices.items()]
    rows += [(Kind.REPLICA, key, row) for key, row in snapshot.replicas.items()]
    return [
        {
            "kind": str(kind),
            "source": key,
            "label": str(row.details.get("name", key)),
            "name": field.name,
            "value": _rounded(getattr(row, field.name)),
            "unit": field.unit,
            "age_s": _rounded(age_s),
        }
        for kind, key, row in rows
        for field in fields_of(kind)
        if (age_s := row.age_s.get(field.name)) is not None  # else it was never known
    ]


def _decision(given: Mapping[str, Any]) -> Json:
    """What may be shown of a placement, whatever else stands in it."""
    found = {key: given[key] for key in _DECISION_KEYS if key in given}
    return {key: value if key == "time_s" else _short(value) for key, value in found.items()}


def _loop(loop: Mapping[str, Any]) -> Json:
    """Of the allocation loop's figures those that people look at."""
    return {key: _short(value) for key, value in loop.items() if key not in ("models", "net_runs", "net")}


def _short(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _short(each) for key, each in value.items()}
    return _rounded(value) if isinstance(value, float) else value


def _rounded(value: float | None) -> float | None:
    """To five digits: documents stay short, and nothing here is known better."""
    if value is None or not math.isfinite(value):
        return None
    if value == 0 or value == round(value):
        return value
    return float(f"{value:.5g}")
