"""``zeta replay TRACE`` and the demonstration that ``make demo`` runs."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from zeta import config
from zeta.errors import ConfigError
from zeta.sim.spec import DEFAULT_FLEET_NAME, FORECASTS, ReplaySpec
from zeta.sim.workload import MIX_RULES, SLO_RULES, TIE_RULES, Burst
from zeta.traces import EMBEDDED_NAME

if TYPE_CHECKING:
    from zeta.cli._shared import Commands
    from zeta.sim.results import ReplayResult

__all__ = ["add_to", "replay_demo"]

_DESCRIPTION = f"""
Replays a request trace through the real scheduler, with simulated engines, on virtual time.

TRACE is csv, csv.gz, jsonl or parquet with arrival_us | arrival_ms | arrival_s, prompt_tokens, output_tokens and
optionally model, client, complexity, deadline_ms, end_deadline_ms and prefix_blocks; or Azure's, BurstGPT's or
Mooncake's raw form. '{EMBEDDED_NAME}' is an hour of a chat service that comes with zeta.
"""
_EXAMPLES = f"""
examples:
  zeta replay {EMBEDDED_NAME} --policy water-fill even --load 2
  zeta replay day.csv.gz --burst large:3:600:120 --slo mixed --seed 1 2 3 --json out.json --html out.html
  zeta replay day.csv.gz --fleet fleet.toml --policy all --capacity-at 0.99
"""
_DEMO_LOAD = 0.95  # of the trace: predicted work is about 0.55 of the device
_DEMO_BURST = Burst("large", 4.0, 900.0, 45.0)


def add_to(commands: Commands) -> None:
    """Adds the commands."""
    parser = commands.add_parser(
        "replay",
        help="replay a request trace through the scheduler, simulated",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_options(parser)
    parser.set_defaults(run=_run)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("trace", metavar="TRACE", help="the trace's file")
    what = parser.add_argument_group("what runs")
    what.add_argument(
        "--fleet", metavar="FILE", help="models, replicas and devices; by default three models on an H200"
    )
    what.add_argument(
        "--policy",
        metavar="NAME",
        nargs="+",
        action="extend",
        choices=[*config.POLICIES, "all"],
        help=f"{', '.join(config.POLICIES)} or all; by default the fleet's",
    )
    what.add_argument(
        "--order",
        choices=config.ORDERS,
        help="by default water-fill runs edf, and every other policy both; fifo is one queue per model without spill",
    )
    what.add_argument("--admission", choices=config.ADMISSIONS, default="queue", help="by default queue")
    what.add_argument("--actuation-delay", metavar="S", type=float, default=0.0, help="seconds from plan to effect")
    what.add_argument(
        "--forecast",
        choices=FORECASTS,
        default="auto",
        help="what the allocation loop knows of the load to come, where the delay is 5 s or more; by default auto",
    )
    load = parser.add_argument_group("the workload")
    load.add_argument("--load", metavar="X", type=float, default=1.0, help="multiplies the arrival rate")
    load.add_argument(
        "--slo", choices=SLO_RULES, default="standard", help="mixed: 30 %% of the requests 10 times looser"
    )
    load.add_argument("--mix", choices=MIX_RULES, default="length", help="how complexity is drawn where none is given")
    load.add_argument("--complexity", metavar="FILE", help="a table with column complexity, one row for each of TRACE")
    load.add_argument(
        "--burst",
        metavar="MODEL:FACTOR:START_S:SECONDS",
        action="append",
        default=[],
        help="extra work for one model, FACTOR times its mean rate; can be repeated",
    )
    load.add_argument("--ties", choices=TIE_RULES, default="auto", help="spread arrivals of a log with a coarse clock")
    load.add_argument("--seed", metavar="N", type=int, nargs="+", action="extend", help="by default 0")
    find = parser.add_argument_group("answers")
    find.add_argument(
        "--capacity-at", metavar="A", type=float, help="find the highest load with attainment A, such as 0.99"
    )
    find.add_argument("--json", metavar="OUT", help="write the results; - for the standard output")
    find.add_argument("--html", metavar="OUT", help="write a page with time series (extra 'cli')")
    find.add_argument("--ticks", metavar="FILE", help="write a line of JSON for each tick")


def _run(args: argparse.Namespace) -> int:
    from zeta.sim.report import need_plotly

    spec = _spec(args)
    if args.html:
        need_plotly()
    for path in (args.json, args.html, args.ticks):
        if path and path != "-":
            _need_writable(Path(path))
    return _replay(spec, args.json, args.html)


def _spec(args: argparse.Namespace) -> ReplaySpec:
    fleet = config.load(args.fleet) if args.fleet else config.default_fleet()
    policies = args.policy or [fleet.scheduler.policy]
    named = config.POLICIES if "all" in policies else tuple(dict.fromkeys(policies))
    return ReplaySpec(
        trace=_trace_path(args.trace),
        fleet=fleet,
        fleet_name=args.fleet or DEFAULT_FLEET_NAME,
        policies=named,
        order=args.order,
        admission=args.admission,
        load=args.load,
        mix=args.mix,
        slo=args.slo,
        bursts=tuple(map(Burst.parse, args.burst)),
        ties=args.ties,
        complexity=Path(args.complexity) if args.complexity else None,
        actuation_delay_s=args.actuation_delay,
        forecast=args.forecast,
        seeds=tuple(dict.fromkeys(args.seed or [0])),
        capacity_at=args.capacity_at,
        ticks=Path(args.ticks) if args.ticks else None,
        wants_series=bool(args.html),
    )


def _trace_path(name: str) -> Path | None:
    return None if name == EMBEDDED_NAME and not Path(name).exists() else Path(name)


def _need_writable(path: Path) -> None:
    """Fails before a long replay rather than after it."""
    folder = path.parent
    if path.is_dir() or not folder.is_dir() or not os.access(path if path.exists() else folder, os.W_OK):
        raise ConfigError(f"cannot write {path}; expected a file in a folder that exists and may be written to")


def _replay(spec: ReplaySpec, json_out: str | None, html_out: str | None) -> int:
    from zeta.cli._shared import shown_progress
    from zeta.sim.replay import run_replay
    from zeta.sim.report import write_html

    with shown_progress() as progress:
        result: ReplayResult = run_replay(spec, progress=progress)
    if json_out == "-":
        print(json.dumps(result.to_dict(), indent=1, allow_nan=False))
    else:
        _print(result)
        if json_out:
            result.write_json(json_out)
    if html_out:
        write_html(result, html_out)
    return 0


def _print(result: ReplayResult) -> None:
    from zeta.cli._shared import print_table
    from zeta.sim.report import comparison_lines, heading_lines, summary_rows

    for line in heading_lines(result):
        print(line)
    print()
    print_table(*summary_rows(result))
    for line in comparison_lines(result):
        print(line)


def replay_demo() -> int:
    """The embedded hour: at a load where simple schedulers lose requests, then with a backlog put on one model."""
    from zeta.cli._shared import shown_progress
    from zeta.sim.replay import run_replay, share_response_of

    busy = ReplaySpec(policies=("water-fill", "even", "queue-length"), load=1.5, seeds=(0, 1, 2))
    print(f"zeta replay {EMBEDDED_NAME} --policy water-fill even queue-length --load 1.5 --seed 0 1 2")
    with shown_progress() as progress:
        _print(run_replay(busy, progress=progress))
    burst = f"{_DEMO_BURST.model}:{_DEMO_BURST.factor:g}:{_DEMO_BURST.start_s:g}:{_DEMO_BURST.seconds:g}"
    print(f"\nzeta replay {EMBEDDED_NAME} --load {_DEMO_LOAD:g} --burst {burst} --ticks TICKS")
    response = share_response_of(ReplaySpec(load=_DEMO_LOAD, bursts=(_DEMO_BURST,)))
    for line in response.lines():
        print(line)
    return 0 if response.holds else 1
