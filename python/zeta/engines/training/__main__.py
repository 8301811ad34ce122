"""``python -m zeta.engines.training``: makes the embedded language models anew."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from zeta.engines._lm import ARTEFACTS
from zeta.engines.training._fit import SIZES, Plan
from zeta.engines.training._make import make


def _show(done: float, label: str) -> None:
    sys.stderr.write(f"\r{100 * done:3.0f} % {label:<60}")
    sys.stderr.flush()


def main() -> int:
    """All sizes."""
    parser = argparse.ArgumentParser(prog="python -m zeta.engines.training", description=__doc__)
    parser.add_argument("--root", type=Path, default=Path(), help="a checkout of zeta; by default here")
    parser.add_argument("--out", type=Path, default=ARTEFACTS, help="where the models go; by default into the package")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="of torch; another number gives other models")
    parser.add_argument("--steps", type=int, help="fewer, to try something")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    sizes = (
        SIZES
        if args.steps is None
        else [type(size)(size.name, size.width, size.layers, args.steps, size.rate) for size in SIZES]
    )
    manifest = make(args.root, args.out, sizes, Plan(seed=args.seed), _show)
    for name, row in manifest["models"].items():
        sys.stdout.write(
            f"\n{name}: {row['parameters']} parameters, {row['size_bytes']} bytes, {row['held_out_bits_per_byte']}, "
            f"{row['answers_right']}"
        )
    sys.stdout.write("\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
