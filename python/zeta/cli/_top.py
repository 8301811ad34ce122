"""``zeta top``: a running gateway, in the terminal."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import time
from typing import TYPE_CHECKING, Any

from zeta._http import Server, Unanswered
from zeta.cli._shared import print_table
from zeta.errors import MissingExtraError, ZetaError

if TYPE_CHECKING:
    from rich.console import Group

    from zeta.cli._shared import Commands

__all__ = ["add_to"]

_KEY = "ZETA_API_KEY"
_PATIENCE_S = 3.0
_DECISIONS = 6
_UNKNOWN = "–"

Table = tuple[str, list[str], list[list[str]]]
"""A title, names of columns, rows."""


def add_to(commands: Commands) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "top",
        help="what a running gateway does: models, replicas, readings, decisions",
        description=f"Shows a running gateway once a second. Where it asks for a key, {_KEY} holds one.",
    )
    parser.add_argument("--url", default="http://127.0.0.1:8080", help="the gateway (default: %(default)s)")
    parser.add_argument("--once", action="store_true", help="print it once and end")
    parser.add_argument("--interval", type=_seconds, default=1.0, metavar="S", help="from one look to the next, in s")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    gateway = _Gateway(args.url, os.environ.get(_KEY))
    if args.once:
        state = gateway.state()
        print(_headline(state))
        for title, names, rows in _tables(state):
            print(f"\n{title}")
            print_table(names, rows)
        return 0
    if importlib.util.find_spec("rich") is None:
        raise MissingExtraError("zeta top (without --once)", ["rich"], "cli")
    return _watch(gateway, args.interval)


class _Gateway:
    """The gateway that is asked."""

    def __init__(self, url: str, key: str | None) -> None:
        try:
            headers = {} if key is None else {"Authorization": f"Bearer {key}"}
            self._server = Server(url.rstrip("/").removesuffix("/v1"), headers)
        except ValueError as error:
            raise ZetaError(f"--url: {error}") from None

    def state(self) -> dict[str, Any]:
        """What it says of itself.

        Raises
        ------
        ZetaError
            If it does not, with what to do about it.
        """
        shown = self._server.shown
        try:
            answer = self._server.ask("GET", "/v1/zeta/state", None, time.monotonic() + _PATIENCE_S)
        except Unanswered as error:
            raise ZetaError(f"{shown} {error.why}") from None
        if answer.status in (401, 403):
            raise ZetaError(f"{shown} asks for a key; put one that it knows into {_KEY}")
        try:
            found = json.loads(answer.body)
        except ValueError:
            found = None
        if answer.status != 200 or not isinstance(found, dict) or "models" not in found:
            raise ZetaError(f"{shown} answers, but not as a gateway of zeta (status {answer.status}); see zeta serve")
        return found


def _watch(gateway: _Gateway, interval_s: float) -> int:
    from rich.console import Console
    from rich.live import Live

    state = gateway.state()  # what is wrong from the start is said at once, and ends it
    console = Console()
    with Live(_view(state, None), console=console, screen=console.is_terminal, auto_refresh=False) as live:
        while True:
            time.sleep(interval_s)
            trouble = None
            try:
                state = gateway.state()
            except ZetaError as error:
                trouble = str(error)
            live.update(_view(state, trouble), refresh=True)


def _view(state: dict[str, Any], trouble: str | None) -> Group:
    from rich.box import SIMPLE_HEAD
    from rich.console import Group
    from rich.table import Table as Ruled
    from rich.text import Text

    parts: list[Any] = [Text(_headline(state), style="bold")]
    if trouble is not None:
        parts.append(Text(trouble, style="red"))
    for title, names, rows in _tables(state):
        ruled = Ruled(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
        for at, name in enumerate(names):
            ruled.add_column(name, justify="left" if at == 0 else "right", no_wrap=at > 0, overflow="ellipsis")
        for row in rows:
            ruled.add_row(*map(Text, row))  # names are text, not markup
        parts.append(ruled)
    return Group(*parts)


def _headline(state: dict[str, Any]) -> str:
    of = state["outcomes"]
    refused = sum(count for name, count in of.items() if name.startswith("rejected"))
    failed = sum(count for name, count in of.items() if name.startswith(("failed", "expired")))
    parts = [
        f"zeta {state['version']}",
        f"up {_span(state['uptime_s'])}",
        f"{state['waiting']} waiting",
        f"{state['running']} running",
        f"{of['completed']} completed",
        f"{refused} refused",
        f"{failed} failed",
        f"attainment {_percent(state['attainment'])}",
    ]
    return ", ".join(parts) + (", draining" if state["is_draining"] else "")


def _tables(state: dict[str, Any]) -> list[Table]:
    found = [_models(state), _replicas(state), _readings(state), _decisions(state)]
    return [table for table in found if table[2]]


def _models(state: dict[str, Any]) -> Table:
    names = ["model", "share", "need", *state["classes"], "running", "arrivals/s", "TTFT p50", "p99", "TPOT p50", "p99"]
    rows = [
        [
            model["name"],
            _percent(model["share"]),
            _percent(model["need"]),
            *map(str, model["waiting_by_class"]),
            str(model["running"]),
            _number(model["arrivals_rps"]),
            *(_ms((model[of] or {}).get(part)) for of in ("ttft_ms", "tpot_ms") for part in ("p50", "p99")),
            _percent(model["attainment"]),
        ]
        for model in state["models"]
    ]
    return "Models: share, need, waiting by class, the last minute's times", [*names, "attainment"], rows


def _replicas(state: dict[str, Any]) -> Table:
    def word(replica: dict[str, Any]) -> str:
        if replica["is_draining"]:
            return "draining"
        if replica["is_ejected"]:
            return "left out"
        return "ready" if replica["is_healthy"] else "down"

    rows = [
        [each["name"], each["model"], word(each), str(each["in_flight"]), str(each["failures"]), _span(each["since_s"])]
        for each in state["replicas"]
    ]
    return "Replicas", ["replica", "model", "state", "in flight", "failures", "since"], rows


def _readings(state: dict[str, Any]) -> Table:
    wanted = {
        "device": ("utilisation", "memory_used_bytes", "power_w", "temperature_c"),
        "host": ("cpu_utilisation", "memory_used_bytes", "load_1m"),
    }
    rows = [
        [each["label"], each["name"], _reading(each), f"{_span(each['age_s'])} ago"]
        for each in state["readings"]
        if each["name"] in wanted.get(each["kind"], ())
    ]
    return "Readings", ["of", "reading", "value", "read"], rows


def _decisions(state: dict[str, Any]) -> Table:
    classes = state["classes"]
    rows = [
        [
            time.strftime("%H:%M:%S", time.localtime(each.get("time_s", 0))),
            str(each.get("request_id", _UNKNOWN)),
            classes[each["priority"]] if each.get("priority", 99) < len(classes) else _UNKNOWN,
            str(each.get("replica", _UNKNOWN)),
            _ms(each.get("queued_ms")),
            str(each.get("reason", _UNKNOWN)).replace("_", " "),
        ]
        for each in state["decisions"][:_DECISIONS]
    ]
    return "Last decisions", ["when", "request", "class", "went to", "waited", "because"], rows


def _reading(reading: dict[str, Any]) -> str:
    value, unit = reading["value"], reading["unit"]
    if value is None:
        return "unknown"
    if unit == "1":
        return _percent(value)
    if unit == "bytes":
        return f"{value / 2**30:.1f} GiB"
    return _number(value) + ("" if unit == "count" else f" {unit}")


def _percent(value: float | None) -> str:
    return _UNKNOWN if value is None else f"{value:.1%}"


def _number(value: float | None) -> str:
    return _UNKNOWN if value is None else f"{value:.3g}"


def _ms(value: float | None) -> str:
    if value is None:
        return _UNKNOWN
    return f"{value / 1e3:.1f} s" if value >= 1e3 else f"{value:.3g} ms" if value >= 1 else f"{value:.2f} ms"


def _span(seconds: float | None) -> str:
    if seconds is None:
        return _UNKNOWN
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.1f} s"


def _seconds(text: str) -> float:
    value = float(text)
    if not 0.1 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"{text} is not from 0.1 to 3600 seconds")
    return value
