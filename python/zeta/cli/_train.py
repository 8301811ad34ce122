"""``zeta train TRACE... --out DIR``."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from zeta.errors import ConfigError, MissingExtraError

if TYPE_CHECKING:
    from zeta.cli._shared import Commands

__all__ = ["add_to"]

_DESCRIPTION = """
Trains the forecaster's net on traces and writes it with its manifest, ready for --model DIR.

TRACE is anything that `zeta replay` reads, or a rate series (t_s, rate_rps and optionally workload, gap). The net sees
the first 70 % of each series only, so that `zeta backtest` can judge it on the rest; --until 1 makes one that must not
be judged on these traces.
"""
_EXAMPLES = """
examples:
  zeta train azure_conv_2023 day.csv.gz --out net
  zeta backtest day.csv.gz --model net
"""


def add_to(commands: Commands) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "train",
        help="train the forecaster's net on traces",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("traces", metavar="TRACE", nargs="+", help="request traces and rate series")
    parser.add_argument("--out", metavar="DIR", required=True, help="where net.onnx and manifest.json go")
    parser.add_argument("--until", metavar="PART", type=float, default=0.7, help="of each series; by default 0.7")
    parser.add_argument("--bin", metavar="S", type=float, help="length of a bin; by default the trace's own, or 1 s")
    parser.add_argument(
        "--seed", metavar="N", type=int, nargs="+", action="extend", help="a fit each; by default 0 1 2"
    )
    parser.add_argument("--steps", metavar="N", type=int, help="of the optimiser, per fit; by default 4000")
    parser.add_argument("--synthetic", metavar="N", type=int, help="made-up series beside; by default 1500")
    parser.add_argument("--threads", metavar="N", type=int, default=1, help="of torch; by default 1")
    parser.add_argument("--html", metavar="OUT", help="write a page with the losses (extra 'cli')")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    if not 0.0 < args.until <= 1.0:
        raise ConfigError(f"--until {args.until:g}; expected a part of each series, above 0 and at most 1")
    out = Path(args.out)
    if out.exists() and not out.is_dir():
        raise ConfigError(f"cannot write into {out}, which is a file; expected a folder, or a name for a new one")
    missing = [name for name in ("onnx", "torch") if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtraError("zeta train", missing, "train")
    from zeta.cli._shared import print_table, shown_progress
    from zeta.forecast.series import read_series
    from zeta.forecast.training import Plan, TrainingSettings, heading_lines, source_rows, train, write_html

    if args.html:
        from zeta._page import need_plotly

        need_plotly()
    given = {
        "seeds": tuple(dict.fromkeys(args.seed)) if args.seed else None,
        "synthetic_series": args.synthetic,
        "plan": None if args.steps is None else Plan(steps=args.steps),
    }
    chosen = {name: value for name, value in given.items() if value is not None}
    settings = TrainingSettings(until=args.until, threads=args.threads, **chosen)
    series = [one for trace in args.traces for one in read_series(trace, bin_s=args.bin)]
    with shown_progress() as progress:
        trained = train(series, settings, progress)
    artefact = trained.write(out)
    for line in heading_lines(trained):
        print(line)
    print()
    print_table(*source_rows(trained))
    size = artefact.manifest.size_bytes
    print(f"\nWritten: {out} ({size} bytes; ONNX Runtime within {artefact.manifest.about['parity']:.1g} of torch)")
    if args.html:
        write_html(trained, args.html)
    return 0
