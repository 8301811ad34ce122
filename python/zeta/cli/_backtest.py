"""``zeta backtest TRACE...``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from zeta.errors import ConfigError

if TYPE_CHECKING:
    from zeta.cli._shared import Commands
    from zeta.forecast.artefact import Artefact
    from zeta.forecast.backtest import BacktestResult

__all__ = ["add_to"]

_DESCRIPTION = """
Judges the forecasters on traces: each walks every series bin by bin, learns online, and is scored on the last 30 %.

TRACE is anything that `zeta replay` reads, or a rate series (t_s, rate_rps and optionally workload, gap). Forecast is
the mean rate over a horizon, of arrivals and of predicted work, as quantiles 0.5, 0.9 and 0.99. Missing bins are left
out, never read as zero. The net is that of --model, else the one that comes with zeta.
"""
_EXAMPLES = """
examples:
  zeta backtest azure_conv_2023 --bin 10 --horizon 10 100
  zeta backtest day.csv.gz --model net --json out.json
"""


def add_to(commands: Commands) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "backtest",
        help="judge the forecasters on traces",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("traces", metavar="TRACE", nargs="+", help="request traces and rate series")
    parser.add_argument("--model", metavar="DIR", help="a net made by `zeta train`")
    parser.add_argument("--no-net", action="store_true", help="leave the net out")
    parser.add_argument("--bin", metavar="S", type=float, help="length of a bin; by default the trace's own, or 1 s")
    parser.add_argument(
        "--horizon",
        metavar="S",
        type=float,
        nargs="+",
        action="extend",
        help="by default 1, 10, 60, 180 and 600 bins, where the scored part is at least ten times as long",
    )
    parser.add_argument("--json", metavar="OUT", help="write the scores; - for the standard output")
    parser.add_argument("--html", metavar="OUT", help="write a page with plots (extra 'cli')")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from zeta.cli._shared import shown_progress
    from zeta.forecast.backtest import backtest

    for name in ("json", "html"):
        path = getattr(args, name)
        if path and path != "-" and not Path(path).resolve().parent.is_dir():
            raise ConfigError(f"cannot write {path}: its folder does not exist; create it first", name, path)
    if args.html:
        from zeta._page import need_plotly

        need_plotly()
    artefact = None if args.no_net else _artefact(args.model)
    with shown_progress() as progress:
        result = backtest(args.traces, bin_s=args.bin, horizons_s=args.horizon, artefact=artefact, progress=progress)
    if args.html:
        from zeta.forecast.report import write_html

        write_html(result, args.html)
    if args.json == "-":
        print(json.dumps(result.to_dict(), indent=1, allow_nan=False))
        return 0
    _print(result)
    if args.json:
        result.write_json(args.json)
    return 0


def _artefact(directory: str | None) -> Artefact | None:
    """The net to judge: that of `directory`, else the package's where it has one."""
    from zeta.forecast.artefact import MANIFEST_NAME, load_artefact

    if directory is not None:
        return load_artefact(Path(directory))
    shipped = Path(__file__).resolve().parent.parent / "artefacts" / "forecast"
    return load_artefact(shipped) if (shipped / MANIFEST_NAME).exists() else None


def _print(result: BacktestResult) -> None:
    from zeta.cli._shared import print_table
    from zeta.forecast.backtest import CANDIDATES

    names = ("series", "target", "bin s", "horizon s", "origins", "forecaster")
    columns = (*names, "WAPE", "pinball .5", "pinball .9", "pinball .99", "under .9", "under .99")
    rows = []
    for one in result.series:
        head = [one.name, one.target, f"{one.bin_s:g}", f"{one.horizon_s:g}", f"{one.origins:,}"]
        for name in CANDIDATES:
            if name not in one.candidates:
                continue
            score = one.candidates[name]
            losses = (score.pinball_50, score.pinball_90, score.pinball_99)
            wape = "-" if score.wape is None else f"{score.wape:.3f}"
            covered = (f"{score.coverage_90:.3f}", f"{score.coverage_99:.4f}")
            rows.append([*head, name, wape, *(f"{loss:.4g}" for loss in losses), *covered])
            head = [""] * len(head)
    print_table(columns, rows)
    for note in result.notes:
        print(note)
