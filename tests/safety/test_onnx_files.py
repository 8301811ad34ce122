"""Hostile model files: damaged in thousands of ways, or reaching for other files. None gets to ONNX Runtime."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zeta.errors import ForecastError, ModelLoadError
from zeta.forecast import onnx
from zeta.forecast.artefact import Schema, inspect_model, load_artefact, write_artefact
from zeta.testing.onnx_model import field, graph, mlp_model, model, node, port, tensor

SCHEMA = Schema(features=4)


def campaign(mutants: int, seed: int) -> dict[str, int]:
    """In a process of its own, so that a crash is an exit code."""
    ended = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-X",
            "faulthandler",
            "-m",
            "zeta.testing.onnx_mutants",
            str(mutants),
            str(seed),
        ],
        capture_output=True,
        text=True,
        timeout=7_200,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    counts: dict[str, int] = json.loads(ended.stdout)
    return counts


def check_campaign(mutants: int, seed: int) -> None:
    counts = campaign(mutants, seed)
    assert counts["mutants"] == mutants
    assert counts["accepted_with_pin"] == 0
    assert counts["accepted_unlike"] == 0
    # Each of the three judges had something to refuse, and not everything fell to the first one.
    fates = ("refused_by_walk", "refused_by_runtime", "refused_by_golden", "accepted_alike")
    assert all(counts[fate] > 0 for fate in fates), counts
    assert sum(counts[fate] for fate in fates) == mutants


def test_of_5000_damaged_files_none_is_accepted_and_none_crashes() -> None:
    check_campaign(5_000, seed=0)


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(1, 6))
def test_of_a_million_damaged_files_none_is_accepted_and_none_crashes(seed: int) -> None:
    check_campaign(200_000, seed)


# --- data outside the file -------------------------------------------------------------------------------------------

PLACES = {
    "absolute": "/etc/passwd",
    "parent": "../secret",
    "grandparents": "../" * 16 + "etc/passwd",
    "hidden parent": "a/../../secret",
    "this folder": "./secret",
    "plain": "secret",
    "link": "link",
    "hardlink": "hard",
    "process": "/proc/self/environ",
    "device": "/dev/zero",
    "url": "file:///etc/passwd",
    "backslash": "..\\secret",
    "empty": "",
    "unicode": "․․/secret",
    "in memory": "*/_ORT_MEM_ADDR_/*",
}

OUTSIDE = 1  # TensorProto.DataLocation.EXTERNAL


def pair(key: str, value: str) -> bytes:
    return field(1, key) + field(2, value)


def reference(place: str) -> bytes:
    """The fields by which a tensor names a file: location, offset, length, and that it is elsewhere."""
    entries = (("location", place), ("offset", "0"), ("length", "240"))
    return b"".join(field(13, pair(*entry)) for entry in entries) + field(14, OUTSIDE)


def empty_tensor(name: str, dims: tuple[int, ...], extra: bytes) -> bytes:
    return b"".join(field(1, dim) for dim in dims) + field(2, 1) + field(8, name) + extra


def net(
    *, weights: tuple[bytes, ...] = (), nodes: tuple[bytes, ...] = (), in_graph: bytes = b"", in_model: bytes = b""
) -> bytes:
    """A linear net with additions."""
    kernel = () if any(b"kernel" in weight for weight in weights) else (tensor("kernel", np.ones((4, 15), np.float32)),)
    product = node("MatMul", ("features", "kernel"), ("quantiles",))
    ports = (port("features", ("rows", 4)), port("quantiles", ("rows", 15)))
    return model(graph((*nodes, product), (*kernel, *weights), ports, extra=in_graph), extra=in_model)


def with_tensor_attribute(operator: str, value: bytes, number: int, kind: int) -> bytes:
    holder = field(1, "value") + field(number, value) + field(20, kind)
    return net(nodes=(node(operator, (), ("x",), holder),))


def sparse(values: bytes, indices: bytes) -> bytes:
    return field(1, values) + field(2, indices) + field(3, 4) + field(3, 15)


FORMS: dict[str, Callable[[bytes], bytes]] = {
    # The ways in: as weights, named but not flagged, flagged but not named, beside data, twice, in attributes, ...
    "weights": lambda outside: net(weights=(empty_tensor("kernel", (4, 15), outside),)),
    "named only": lambda outside: net(weights=(empty_tensor("kernel", (4, 15), outside[: -len(field(14, OUTSIDE))]),)),
    "beside data": lambda outside: net(weights=(tensor("kernel", np.ones((4, 15), np.float32), extra=outside),)),
    "flag twice": lambda outside: net(weights=(empty_tensor("kernel", (4, 15), field(14, 0) + outside),)),
    "unused": lambda outside: net(weights=(empty_tensor("other", (60,), outside),)),
    "constant": lambda outside: with_tensor_attribute("Constant", empty_tensor("v", (60,), outside), 5, 4),
    "constants": lambda outside: with_tensor_attribute("Constant", empty_tensor("v", (60,), outside), 10, 9),
    "sparse constant": lambda outside: with_tensor_attribute(
        "Constant", sparse(empty_tensor("v", (60,), outside), tensor("i", np.arange(60))), 22, 11
    ),
    "sparse values": lambda outside: net(
        in_graph=field(15, sparse(empty_tensor("s", (60,), outside), tensor("i", np.arange(60))))
    ),
    "sparse indices": lambda outside: net(
        in_graph=field(15, sparse(tensor("s", np.ones(60, np.float32)), empty_tensor("i", (60,), outside)))
    ),
    "branch": lambda outside: net(
        nodes=(
            node(
                "If",
                ("features",),
                ("x",),
                field(1, "then_branch") + field(6, field(5, empty_tensor("v", (60,), outside))) + field(20, 5),
            ),
        )
    ),
    "branch of a plain operator": lambda outside: net(
        nodes=(
            node(
                "Relu",
                ("features",),
                ("x",),
                field(1, "body") + field(6, field(5, empty_tensor("v", (60,), outside))) + field(20, 5),
            ),
        )
    ),
    "function": lambda outside: net(
        in_model=field(
            25,
            field(1, "F")
            + field(7, node("Constant", (), ("x",), field(1, "value") + field(5, empty_tensor("v", (60,), outside)))),
        )
    ),
    "training": lambda outside: net(in_model=field(20, field(1, field(5, empty_tensor("v", (60,), outside))))),
    "second graph": lambda outside: net(in_model=field(7, field(5, empty_tensor("v", (60,), outside)))),
    "quantisation": lambda outside: net(in_graph=field(14, field(1, "kernel") + field(2, outside))),
}

VARIANTS = [(form, place) for form in FORMS for place in PLACES]


def test_there_are_many_variants_and_all_differ() -> None:
    files = {FORMS[form](reference(PLACES[place])) for form, place in VARIANTS}
    assert len(files) == len(VARIANTS) >= 40
    inspect_model(net(), SCHEMA)  # without the addition it is a plain net


@pytest.mark.parametrize("form", FORMS)
def test_a_file_that_reaches_for_another_is_refused_before_any_runtime(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reached(*_: Any, **__: Any) -> Any:
        raise AssertionError("ONNX Runtime saw the file")

    artefact = write_artefact(tmp_path / "net", mlp_model(SCHEMA), SCHEMA, np.ones((2, 4)))
    secret = tmp_path / "net" / "secret"
    secret.write_bytes(b"\0" * 240)
    (tmp_path / "net" / "link").symlink_to("/etc/passwd")
    (tmp_path / "net" / "hard").hardlink_to(secret)
    monkeypatch.setattr(onnx, "_new_session", reached)
    monkeypatch.setattr(onnx, "OnnxNet", reached)
    for place in PLACES.values():
        hostile = FORMS[form](reference(place))
        # The manifest is the attacker's too: size and hash fit.
        (artefact.directory / "net.onnx").write_bytes(hostile)
        path = artefact.directory / "manifest.json"
        document = json.loads(path.read_text())
        document |= {"size_bytes": len(hostile), "sha256": hashlib.sha256(hostile).hexdigest()}
        path.write_text(json.dumps(document))
        with pytest.raises(ModelLoadError):
            load_artefact(artefact.directory, schema=SCHEMA)


@pytest.mark.parametrize(
    ("file", "sentence"),
    [
        (FORMS["weights"](reference("secret")), "external data; expected all weights inside"),
        (FORMS["sparse values"](reference("secret")), "sparse initialisers; expected dense"),
        (FORMS["branch of a plain operator"](reference("secret")), "a subgraph; expected no control flow"),
        (FORMS["function"](reference("secret")), "functions; expected no functions"),
        (FORMS["training"](reference("secret")), "training information"),
        (net(in_model=field(7, b"")), "graph twice"),
        (net(weights=(empty_tensor("kernel", (4, 15), field(14, OUTSIDE)),)), "external data"),
        (net(weights=(empty_tensor("kernel", (4, 15), field(14, 1 << 32)),)), "external data"),
    ],
)
def test_the_refusal_says_what_it_met(file: bytes, sentence: str) -> None:
    with pytest.raises(ForecastError, match=sentence):
        inspect_model(file, SCHEMA)
