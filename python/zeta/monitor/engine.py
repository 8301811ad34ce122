"""What an engine tells of itself: vLLM, SGLang, llama.cpp and Ollama, by version, over HTTP."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from typing import Final

from zeta.errors import MonitorError, ProbeUnavailable
from zeta.monitor._engine_forms import FORMS, TextForm, llama_props, llama_slots, ollama_models, wanted_names
from zeta.monitor._engine_http import EngineError, EngineHttp
from zeta.monitor._engine_text import PrometheusText
from zeta.monitor.probe import REPLICA_FIELDS, Field, Kind, Reading

__all__ = ["ENGINES", "EngineProbe"]

ENGINES: Final = ("vllm", "sglang", "llama.cpp", "ollama")
"""Engines that an `EngineProbe` understands."""

Row = dict[str, float | None]

_BY_NAME: Final = {form.engine: form for form in FORMS}
_OK: Final = 200
_NOT_THERE: Final = frozenset({404, 405, 501})
_NAMES: Final = tuple(field.name for field in REPLICA_FIELDS)


class EngineProbe:
    """Reads one replica's engine.

    Parameters
    ----------
    replica : str
        The replica's name: the key of its row.
    url : str
        Of the engine, such as ``"http://10.0.0.7:8000"``.
    engine : str, default "auto"
        One of `ENGINES`; ``auto`` finds out.
    model : str, optional
        Only this model's metrics, where the engine serves several.
    deadline_s : float, default 0.25
        The longest that a read takes, in seconds, all its requests together.
    headers : mapping of str to str, optional
        Sent with every request, such as an ``Authorization``. Never logged.

    Notes
    -----
    A field that this engine or this version of it does not tell is None. Ollama tells neither running nor waiting
    requests; llama.cpp tells no times to first token. A name that vLLM changed is understood in both forms.
    """

    def __init__(
        self,
        replica: str,
        url: str,
        *,
        engine: str = "auto",
        model: str | None = None,
        deadline_s: float = 0.25,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        if engine != "auto" and engine not in ENGINES:
            raise ValueError(f"engine is {engine!r}; expected auto or one of {', '.join(ENGINES)}")
        if not deadline_s > 0:
            raise ValueError(f"deadline_s is {deadline_s}; expected more than 0 seconds")
        self._replica = replica
        self._asked_engine = engine
        self._engine = None if engine == "auto" else engine
        self._model = model
        self._deadline_s = deadline_s
        self._http = EngineHttp(url, headers or {})
        self._lock = threading.Lock()
        self._texts: dict[str, PrometheusText] = {}
        self._has_metrics = True

    @property
    def name(self) -> str:
        """``"engine:"`` and the replica's name."""
        return f"engine:{self._replica}"

    @property
    def kind(self) -> Kind:
        """Replicas."""
        return Kind.REPLICA

    @property
    def fields(self) -> tuple[Field, ...]:
        """Whatever some engine tells."""
        return REPLICA_FIELDS

    @property
    def engine(self) -> str | None:
        """Which engine it is; None until it was found out."""
        return self._engine

    def read(self) -> Reading:
        """Asks the engine once, within the deadline.

        Raises
        ------
        ProbeUnavailable
            If something answers that is none of `ENGINES`, or one that was started without metrics and has no other
            way to tell.
        MonitorError
            If the engine does not answer in time, or with an error.
        MissingExtraError
            Without the package prometheus-client, unless the engine is Ollama.
        """
        until_s = time.monotonic() + self._deadline_s
        if not self._lock.acquire(timeout=self._deadline_s):
            raise MonitorError(f"replica {self._replica!r}: another thread reads it; give each thread its own probe")
        try:
            # The engine's counts are at least as new as the moment of asking.
            taken_ns = time.monotonic_ns()
            if self._engine is None:
                self._engine = self._detect(until_s)
            row = self._row(self._engine, until_s)
        except EngineError as error:
            if self._asked_engine == "auto":
                self._engine = None  # another may be started at the same address
            raise MonitorError(f"replica {self._replica!r} does not answer: {error}") from error
        finally:
            self._lock.release()
        details = {"engine": self._engine, "model": self._model, "has_metrics": self._has_metrics}
        return Reading(
            {self._replica: {name: row.get(name) for name in _NAMES}}, taken_ns, details={self._replica: details}
        )

    def close(self) -> None:
        """Closes the connection. Idempotent; a read under way fails at once."""
        self._http.close()

    # --- which engine --------------------------------------------------------------------------------------------

    def _detect(self, until_s: float) -> str:
        status, body = self._http.get("/metrics", until_s)
        if status == _OK:
            page = body.decode("utf-8", errors="replace")
            for form in FORMS:
                if f"\n{form.prefix}" in f"\n{page}" or f" {form.prefix}" in page:
                    return form.engine
        for path, key, engine in (
            ("/api/version", "version", "ollama"),
            ("/props", "default_generation_settings", "llama.cpp"),
            ("/get_model_info", "model_path", "sglang"),
        ):
            answered, found = self._http.get(path, until_s)
            if answered == _OK and key in _keys(found):
                return engine
        raise ProbeUnavailable(
            f"replica {self._replica!r}: GET /metrics gives status {status} and nothing that an engine says; expected "
            f"one of {', '.join(ENGINES)}; for SGLang start it with --enable-metrics, and give engine=..."
        )

    # --- what it tells -------------------------------------------------------------------------------------------

    def _row(self, engine: str, until_s: float) -> Row:
        if engine == "ollama":
            return self._ollama(until_s)
        form = _BY_NAME[engine]
        row = self._metrics(form, until_s)
        if engine == "llama.cpp":
            return self._llama(row, until_s)
        if row is None:
            flag = "; start it with --enable-metrics" if engine == "sglang" else ""
            raise ProbeUnavailable(f"replica {self._replica!r}: {engine} has no page /metrics{flag}")
        return row

    def _metrics(self, form: TextForm, until_s: float) -> Row | None:
        status, body = self._http.get("/metrics", until_s)
        if status in _NOT_THERE:
            self._has_metrics = False
            return None
        if status != _OK:
            raise EngineError(f"GET /metrics: status {status}")
        self._has_metrics = True
        text = self._texts.get(form.engine)
        if text is None:
            text = self._texts[form.engine] = PrometheusText(wanted_names(form))
        series = text.read(body)
        if not series and form.prefix.encode() not in body:
            raise EngineError(f"GET /metrics: nothing of {form.engine}; another server answers here")
        return form.read(series, self._model)

    def _llama(self, row: Row | None, until_s: float) -> Row:
        """llama.cpp says some things on other pages, each of which may be switched off."""
        row = {} if row is None else row
        for path, fill in (("/slots", llama_slots), ("/props", llama_props)):
            status, body = self._http.get(path, until_s)
            if status == _OK:
                try:
                    fill(body, row)
                except (AttributeError, KeyError, TypeError, ValueError) as error:
                    raise EngineError(f"GET {path}: {error}") from error
        if not self._has_metrics and row.get("running") is None:
            raise ProbeUnavailable(
                f"replica {self._replica!r}: llama.cpp has neither /metrics nor /slots; start it with --metrics"
            )
        return row

    def _ollama(self, until_s: float) -> Row:
        status, body = self._http.get("/api/ps", until_s)
        if status != _OK:
            raise EngineError(f"GET /api/ps: status {status}")
        try:
            return ollama_models(body, self._model)
        except ValueError as error:
            raise EngineError(f"GET /api/ps: {error}") from error


def _keys(body: bytes) -> frozenset[str]:
    try:
        given = json.loads(body)
    except ValueError:
        return frozenset()
    return frozenset(given) if isinstance(given, dict) else frozenset()
