"""The embedded language models on ONNX Runtime: files as their manifest says, batches of tokens to logits."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from zeta.engines._tokens import Tokens
from zeta.errors import ModelLoadError

__all__ = ["ARTEFACTS", "LanguageModel", "manifest"]

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]

ARTEFACTS: Final = Path(__file__).resolve().parent.parent / "artefacts" / "lm"
_FORMAT: Final = 1


def manifest(directory: Path = ARTEFACTS) -> dict[str, Any]:
    """What ``manifest.json`` says.

    Raises
    ------
    ModelLoadError
        If it is absent or of another format.
    """
    path = directory / "manifest.json"
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"{path}: {error}; reinstall zeta, or run python -m zeta.engines.training") from error
    if found.get("format") != _FORMAT:
        raise ModelLoadError(f"{path} has format {found.get('format')!r}; this version reads {_FORMAT}")
    return found


class LanguageModel:
    """One model in one session.

    Parameters
    ----------
    name : str
        One of the manifest's models.
    directory : Path
        Where the manifest and the files are.
    threads : int
        Of ONNX Runtime, within a product.

    Attributes
    ----------
    tokens : Tokens
    width : int
        Of the vectors within.
    facts : dict
        What the manifest says of this model.

    Raises
    ------
    ModelLoadError
        If the file is not what the manifest says, or ONNX Runtime refuses it.

    Notes
    -----
    Products are of 8-bit integers whose scales are fixed at export, and integer sums are exact. So an answer does not
    depend on who else is in the batch.
    """

    def __init__(self, name: str, directory: Path = ARTEFACTS, *, threads: int = 1) -> None:
        known = manifest(directory)
        if name not in known["models"]:
            raise ModelLoadError(f"there is no embedded model {name!r}; there are {', '.join(known['models'])}")
        self.facts: dict[str, Any] = known["models"][name]
        path = directory / self.facts["file"]
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ModelLoadError(f"{path}: {error.strerror}; reinstall zeta") from error
        if len(data) != self.facts["size_bytes"] or hashlib.sha256(data).hexdigest() != self.facts["sha256"]:
            raise ModelLoadError(f"{path} is not the file that manifest.json names; reinstall zeta")
        self.tokens = Tokens(known["merges"])
        self.width: int = self.facts["width"]
        self._rows: int = 2 * self.facts["layers"]
        self._session = _session(data, path, threads)
        self._ones = np.ones((1, 1, 1), np.float32)

    def empty_states(self, count: int) -> Floats:
        """What sequences that have read nothing keep: (rows, count, width)."""
        return np.zeros((self._rows, count, self.width), np.float32)

    def step(self, last: Ids, states: Floats) -> tuple[Floats, Floats, Floats]:
        """One further token for each sequence: (count,) tokens to logits (count, vocabulary), states, hidden."""
        ones = np.broadcast_to(self._ones, (1, len(last), 1))
        return self._run(last[None, :], states, ones, ones)

    def read(self, pieces: Sequence[Sequence[int]], states: Floats) -> tuple[Floats, Floats, Floats]:
        """Several tokens for each sequence, of any lengths above 0; logits are those behind each one's last token."""
        lengths = np.array([len(piece) for piece in pieces])
        longest = int(lengths.max())
        tokens = np.zeros((longest, len(pieces)), np.int64)
        for column, piece in enumerate(pieces):
            tokens[: len(piece), column] = piece
        times = np.arange(longest)[:, None]
        valid = (times < lengths).astype(np.float32)[:, :, None]
        select = (times == lengths - 1).astype(np.float32)[:, :, None]
        return self._run(tokens, states, valid, select)

    def _run(self, tokens: Ids, states: Floats, valid: Floats, select: Floats) -> tuple[Floats, Floats, Floats]:
        inputs = {"tokens": tokens, "states": states, "valid": valid, "select": select}
        logits, after, hidden = self._session.run(None, inputs)
        return logits, after, hidden


def _session(data: bytes, path: Path, threads: int) -> Any:
    # Its telemetry sends data, and hangs the exit of forked children.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions share no base
        raise ModelLoadError(f"ONNX Runtime {onnxruntime.__version__} refuses {path}: {error!s:.300}") from error
