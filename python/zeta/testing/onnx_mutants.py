"""Damages ONNX files in seeded ways, offers each to the loader, and counts what became of it.

``python -m zeta.testing.onnx_mutants COUNT [SEED]`` runs a campaign in this process and prints the counts as JSON: a
crash of ONNX Runtime is then the death of this process, which its caller sees.
"""

from __future__ import annotations

import dataclasses
import json
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

from zeta.errors import ForecastError
from zeta.forecast.artefact import (
    GOLDEN_TOLERANCE,
    MODEL_NAME,
    Artefact,
    Schema,
    golden_distance,
    inspect_model,
    load_artefact,
    write_artefact,
)
from zeta.forecast.onnx import NativeNet, PackageNet, find_library, open_net
from zeta.testing.onnx_model import attribute, graph, mlp_model, model, node, port, tensor

__all__ = ["Campaign", "mutate", "run"]

_SCHEMA = Schema(features=12)
_BYTES = (0x00, 0x01, 0x08, 0x0A, 0x12, 0x1A, 0x22, 0x2A, 0x3A, 0x42, 0x4A, 0x7F, 0x80, 0xFF)  # also common keys


@dataclasses.dataclass(frozen=True, slots=True)
class Campaign:
    """What became of the mutants.

    Attributes
    ----------
    mutants : int
        Files that differ from their original.
    accepted_with_pin : int
        Accepted by `load_artefact` beside the original's manifest.
    refused_by_walk, refused_by_runtime, refused_by_golden : int
        Without the pin: by the walk over the file, by ONNX Runtime, by the golden vectors.
    accepted_alike : int
        Without the pin: what passed all three. A name that nobody reads, say, or the last bits of a weight.
    accepted_unlike : int
        Of those, the ones whose golden outputs, computed again by the other form, differ beyond the tolerance.
    """

    mutants: int
    accepted_with_pin: int
    refused_by_walk: int
    refused_by_runtime: int
    refused_by_golden: int
    accepted_alike: int
    accepted_unlike: int


def _branchy_model(schema: Schema) -> bytes:
    """A net with more kinds of fields than an MLP: integers as weights, attributes, a constant."""
    draw = np.random.default_rng(7)
    weights = [
        tensor("w", draw.standard_normal((schema.features, schema.outputs)).astype(np.float32)),
        tensor("shape", np.array([-1, 5, 3])),
        tensor("flat", np.array([-1, schema.outputs])),
        tensor("last", np.array(2)),
    ]
    nodes = [
        node("MatMul", (schema.input_name, "w"), ("a",)),
        node("LeakyRelu", ("a",), ("b",), attribute("alpha", 0.1)),
        node("Softplus", ("b",), ("c",)),
        node("Reshape", ("c", "shape"), ("d",)),
        node("CumSum", ("d", "last"), ("e",), attribute("exclusive", 0)),
        node("Reshape", ("e", "flat"), (schema.output_name,)),
    ]
    ports = (port(schema.input_name, ("rows", schema.features)), port(schema.output_name, ("rows", schema.outputs)))
    return model(graph(nodes, weights, ports))


def mutate(original: bytes, other: bytes, draw: random.Random) -> bytes:
    """One to four random injuries: bits, bytes, cuts, repeats, splices of another file, numbers of fields."""
    data = bytearray(original)
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        at = draw.randrange(len(data)) if data else 0
        # The structure stands at the begin and at the end; most of the rest is weights.
        if draw.random() < 0.5 and data:
            at = (
                draw.randrange(min(200, len(data))) if draw.random() < 0.5 else len(data) - 1 - at % min(600, len(data))
            )
        span = min(draw.choice((1, 2, 4, 8, 64)), max(1, len(data) - at))
        match draw.randrange(9):
            case 0 if data:
                data[at] ^= 1 << draw.randrange(8)
            case 1 if data:
                data[at] = draw.choice(_BYTES)
            case 2 if data:
                data[at : at + span] = draw.randbytes(span)
            case 3:
                del data[at : at + span]
            case 4:
                data[at:at] = draw.randbytes(span)
            case 5:
                del data[at:]
            case 6:
                data[at:at] = data[at : at + span] * draw.choice((1, 2, 16))
            case 7:
                start = draw.randrange(len(other))
                data[at : at + span] = other[start : start + span]
            case _ if data:
                data[at] = (data[at] + draw.choice((-1, 1, 8, -8))) % 256
    return bytes(data)


def _fate(artefact: Artefact) -> str:
    try:
        inspect_model(artefact.model, _SCHEMA)
    except ForecastError:
        return "refused_by_walk"
    try:
        net = open_net(artefact)
    except ForecastError as refusal:
        return "refused_by_golden" if "golden outputs" in str(refusal) else "refused_by_runtime"
    form = NativeNet if net.backend == "package" and find_library() is not None else PackageNet
    outputs = form(artefact.model, _SCHEMA).run(artefact.manifest.golden_inputs)
    is_alike = golden_distance(outputs, artefact.manifest.golden_outputs) <= GOLDEN_TOLERANCE
    return "accepted_alike" if is_alike else "accepted_unlike"


def run(count: int, seed: int = 0) -> Campaign:
    """Offers so many mutants of two nets, half of them of each."""
    draw = random.Random(seed)
    inputs = np.random.default_rng(seed).standard_normal((16, _SCHEMA.features)) * 2
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        originals = [
            write_artefact(Path(folder) / str(number), made, _SCHEMA, inputs)
            for number, made in enumerate((mlp_model(_SCHEMA, (8, 8)), _branchy_model(_SCHEMA)))
        ]
        while counts["mutants"] < count:
            turn = counts["mutants"] % 2
            original = originals[turn]
            mutant = mutate(original.model, originals[1 - turn].model, draw)
            if mutant == original.model:
                continue
            counts["mutants"] += 1
            (original.directory / MODEL_NAME).write_bytes(mutant)
            try:
                load_artefact(original.directory, schema=_SCHEMA)
            except ForecastError:
                pass
            else:
                counts["accepted_with_pin"] += 1
            counts[_fate(dataclasses.replace(original, model=mutant))] += 1
    return Campaign(**{field.name: counts[field.name] for field in dataclasses.fields(Campaign)})


if __name__ == "__main__":
    arguments = [int(argument) for argument in sys.argv[1:]]
    sys.stdout.write(json.dumps(dataclasses.asdict(run(*arguments))) + "\n")
