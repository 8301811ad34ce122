"""All models, their manifest and their card, from nothing."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from zeta._version import __version__
from zeta.engines._judge import answers_right, bits_per_byte
from zeta.engines._lm import LanguageModel
from zeta.engines._tokens import Tokens
from zeta.engines.training._export import to_onnx
from zeta.engines.training._fit import Plan, Size, fit, tokens_of, watch
from zeta.engines.training._pairs import learn_merges
from zeta.engines.training._text import Corpus, gather

__all__ = ["make"]

Progress = Callable[[float, str], None]
_MERGE_TEXTS = 4000
_JUDGED_TEXTS = 200


def make(root: Path, out: Path, sizes: Sequence[Size], plan: Plan, progress: Progress) -> dict[str, Any]:
    """Trains, exports and judges every size; returns the manifest that it wrote."""
    started_s = time.perf_counter()
    corpus = gather(root, made_up=plan.made_up, seed=plan.seed)
    merges = learn_merges("\n".join([*corpus.own, *corpus.made_up[:_MERGE_TEXTS]]), plan.merges)
    tokens = Tokens(merges)
    own, made_up = tokens_of(corpus.own, tokens), tokens_of(corpus.made_up, tokens)
    out.mkdir(parents=True, exist_ok=True)
    manifest: dict[str, Any] = {"format": 1, "models": {}, "about": _about(corpus, plan, len(own), len(made_up))}
    manifest["merges"] = merges
    for size in sizes:
        fitted = fit(size, plan, tokens, own, made_up, progress)
        watch(fitted.net, own, made_up, plan)
        data = to_onnx(fitted.net)
        (out / f"{size.name}.onnx").write_bytes(data)
        manifest["models"][size.name] = {
            "file": f"{size.name}.onnx",
            "sha256": hashlib.sha256(data).hexdigest(),
            "size_bytes": len(data),
            "parameters": sum(parameter.numel() for parameter in fitted.net.parameters()),
            **{key: value for key, value in dataclasses.asdict(size).items() if key != "name"},
            "fit_s": round(fitted.wall_s, 1),
        }
        _write(out, manifest)
        judge(out, size.name, corpus, manifest)
        _write(out, manifest)
    manifest["about"]["wall_s"] = round(time.perf_counter() - started_s, 1)
    _write(out, manifest)
    return manifest


def judge(out: Path, name: str, corpus: Corpus, manifest: dict[str, Any]) -> None:
    """Adds how good the file is, as ONNX Runtime runs it."""
    model, row = LanguageModel(name, out), manifest["models"][name]
    row["held_out_bits_per_byte"] = {
        "own": round(bits_per_byte(model, corpus.own_held_out[:_JUDGED_TEXTS]), 4),
        "made_up": round(bits_per_byte(model, corpus.made_up_held_out[:_JUDGED_TEXTS]), 4),
    }
    row["answers_right"] = {kind: round(part, 3) for kind, part in answers_right(model, each=100, seed=1).items()}


def _about(corpus: Corpus, plan: Plan, own: int, made_up: int) -> dict[str, Any]:
    return {
        "zeta": __version__,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "texts_sha256": corpus.fingerprint,
        "own_bytes": sum(len(text.encode()) for text in corpus.own),
        "own_tokens": own,
        "made_up_tokens": made_up,
        **dataclasses.asdict(plan),
    }


def _write(out: Path, manifest: dict[str, Any]) -> None:
    text = json.dumps(manifest, indent=1)
    # Pairs on one line each would be most of the file.
    at = text.rindex('\n "merges"') + 1
    head, pairs = text[:at], json.dumps(manifest["merges"], separators=(",", ":"))
    (out / "manifest.json").write_text(f'{head} "merges": {pairs}\n}}\n')
