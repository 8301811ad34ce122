"""What an engine tells of itself: vLLM, SGLang, llama.cpp and Ollama, by version, over HTTP."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Generator, Mapping
from typing import Any, Final

from zeta.errors import MonitorError, ProbeUnavailable
from zeta.monitor._engine_forms import (
    FORMS,
    PageRows,
    Row,
    TextForm,
    llama_props,
    llama_slots,
    ollama_models,
    wanted_names,
)
from zeta.monitor._engine_http import Answer, Conversation, EngineError, EngineHttp, carry_on
from zeta.monitor._engine_text import PrometheusText
from zeta.monitor.probe import REPLICA_FIELDS, Field, Kind, Reading

__all__ = ["ENGINES", "ENGINE_PERIOD_S", "EngineProbe"]

ENGINES: Final = ("vllm", "sglang", "llama.cpp", "ollama")
"""Engines that an `EngineProbe` understands."""

ENGINE_PERIOD_S: Final = 1.0
"""How often engines are read, in seconds, unless the monitor is told otherwise."""

Asks = Generator[str, Answer, Row]

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

    For several replicas take one `EnginesProbe`: it asks them all at once, in one thread.
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
        self._text: PrometheusText | None = None
        self._text_form: TextForm | None = None
        self._rows: PageRows | None = None
        self._searches = -1
        self._numbers: list[float] = []
        self._row: Row = {}
        self._has_metrics = True
        self._details: Mapping[str, Any] = {}

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
    def replica(self) -> str:
        """The replica's name."""
        return self._replica

    @property
    def period_s(self) -> float:
        """How often the monitor reads it by itself: once a second."""
        return ENGINE_PERIOD_S

    @property
    def deadline_s(self) -> float:
        """The longest that a read takes, in seconds."""
        return self._deadline_s

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
            conversation = self.ask()
            carry_on([conversation], until_s)
            row = self.answer_of(conversation)
        finally:
            self._lock.release()
        return Reading({self._replica: row}, taken_ns, details={self._replica: self.details()})

    def close(self) -> None:
        """Closes the connection. Idempotent; a read under way fails at once."""
        self._http.close()

    # --- in steps, for whoever reads several at once -----------------------------------------------------------------

    def ask(self) -> Conversation:
        """What is to be asked for one read. One at a time."""
        return Conversation(self._http, self._asks())

    def answer_of(self, conversation: Conversation) -> Row:
        """The row that it ended with; raises as `read` does."""
        error = conversation.error
        if error is None:
            row: Row = conversation.result
            return row
        if not isinstance(error, EngineError):
            raise error
        if self._asked_engine == "auto":
            self._engine = None  # another may be started at the same address
        raise MonitorError(f"replica {self._replica!r} does not answer: {error}") from error

    def details(self) -> Mapping[str, Any]:
        """What it knows of the engine beside numbers."""
        known = self._details
        if known.get("engine") != self._engine or known.get("has_metrics") != self._has_metrics:
            self._details = {"engine": self._engine, "model": self._model, "has_metrics": self._has_metrics}
        return self._details

    # --- which engine --------------------------------------------------------------------------------------------

    def _asks(self) -> Asks:
        if self._engine is None:
            self._engine = yield from self._detect()
        if self._engine == "ollama":
            return (yield from self._ollama())
        row = yield from self._metrics(_BY_NAME[self._engine])
        if self._engine == "llama.cpp":
            return (yield from self._llama(row))
        if row is None:
            flag = "; start it with --enable-metrics" if self._engine == "sglang" else ""
            raise ProbeUnavailable(f"replica {self._replica!r}: {self._engine} has no page /metrics{flag}")
        return row

    def _detect(self) -> Generator[str, Answer, str]:
        status, body = yield "/metrics"
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
            answered, found = yield path
            if answered == _OK and key in _keys(found):
                return engine
        raise ProbeUnavailable(
            f"replica {self._replica!r}: GET /metrics gives status {status} and nothing that an engine says; expected "
            f"one of {', '.join(ENGINES)}; for SGLang start it with --enable-metrics, and give engine=..."
        )

    # --- what it tells -------------------------------------------------------------------------------------------

    def _metrics(self, form: TextForm) -> Generator[str, Answer, Row | None]:
        status, body = yield "/metrics"
        if status in _NOT_THERE:
            self._has_metrics = False
            return None
        if status != _OK:
            raise EngineError(f"GET /metrics: status {status}")
        self._has_metrics = True
        text = self._text
        if text is None or self._text_form is not form:
            text = self._text = PrometheusText(wanted_names(form))
            self._text_form, self._rows = form, None
        numbers = text.numbers(body)
        if not text.series and form.prefix.encode() not in body:
            raise EngineError(f"GET /metrics: nothing of {form.engine}; another server answers here")
        if self._rows is None or self._searches != text.searches:
            self._rows, self._searches = PageRows(form, text.series, self._model), text.searches
        elif numbers is self._numbers:
            return dict(self._row)  # as before, to the digit
        self._numbers, self._row = numbers, self._rows.row(numbers)
        return dict(self._row)

    def _llama(self, row: Row | None) -> Asks:
        """llama.cpp says some things on other pages, each of which may be switched off."""
        row = dict.fromkeys(_NAMES) if row is None else row
        for path, fill in (("/slots", llama_slots), ("/props", llama_props)):
            status, body = yield path
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

    def _ollama(self) -> Asks:
        status, body = yield "/api/ps"
        if status != _OK:
            raise EngineError(f"GET /api/ps: status {status}")
        try:
            return dict.fromkeys(_NAMES) | ollama_models(body, self._model)
        except ValueError as error:
            raise EngineError(f"GET /api/ps: {error}") from error


def _keys(body: bytes) -> frozenset[str]:
    try:
        given = json.loads(body)
    except ValueError:
        return frozenset()
    return frozenset(given) if isinstance(given, dict) else frozenset()
