"""Parses the command line, runs one command, and turns errors into one line and an exit code.

0: done. 1: the command ran and its answer is no. 2: wrong usage, a setting or a file that cannot be used.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from zeta._version import __version__
from zeta.cli import _backtest, _check, _demo, _doctor, _engine, _replay, _serve, _top, _train
from zeta.errors import ZetaError

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs ``zeta`` with `argv` (the process's own by default) and returns its exit code."""
    args = _parser().parse_args(argv)
    try:
        code = args.run(args)
        sys.stdout.flush()
        return int(code)
    except BrokenPipeError:
        # Whoever read the output has left, as `head` does. Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
    except ZetaError as error:
        print(f"zeta: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        print(f"zeta: cannot use{where}: {error.strerror or error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="zeta",
        description="Decides which waiting request goes to which model next, and how much capacity each model gets.",
    )
    parser.add_argument("--version", action="version", version=f"zeta {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _doctor.add_to(commands)
    _check.add_to(commands)
    _demo.add_to(commands)
    _replay.add_to(commands)
    _train.add_to(commands)
    _backtest.add_to(commands)
    _serve.add_to(commands)
    _top.add_to(commands)
    _engine.add_to(commands)
    return parser
