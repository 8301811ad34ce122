"""What should not happen. What a busy system does daily is an `Outcome`, never an exception.

::

    ZetaError
    ├─ ConfigError (also ValueError)     key, value, what is allowed, the nearest known key
    ├─ TraceError (also ValueError)      a trace file that cannot be read, with its line
    ├─ MissingExtraError (also ImportError)   an optional package, with the command that gets it
    ├─ ClosedError · NotReadyError
    ├─ UnknownTicket (also KeyError)     never issued, or ended too long ago to be kept
    ├─ MonitorError  ─ ProbeUnavailable
    ├─ ForecastError ─ ModelLoadError · SchemaMismatch
    ├─ Rejected                          from `lease` only: outcome, eta_ms, retry_after_s
    └─ IntegrationError

Every message says what was given, what was expected and what to do next.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "ClosedError",
    "ConfigError",
    "ForecastError",
    "IntegrationError",
    "MissingExtraError",
    "ModelLoadError",
    "MonitorError",
    "NotReadyError",
    "ProbeUnavailable",
    "Rejected",
    "SchemaMismatch",
    "TraceError",
    "UnknownTicket",
    "ZetaError",
]


class ZetaError(Exception):
    """Root of everything that zeta raises on purpose."""


class ConfigError(ZetaError, ValueError):
    """A setting that zeta cannot use.

    Parameters
    ----------
    message : str
        The whole sentence for a person.
    key : str, optional
        Dotted path of the setting, such as ``models[0].quality``.
    value : object, optional
        What was given.
    allowed : str, optional
        What would have been accepted.
    nearest : str, optional
        The known key that is spelt most like the one given.
    """

    def __init__(
        self,
        message: str,
        key: str | None = None,
        value: object = None,
        allowed: str | None = None,
        nearest: str | None = None,
    ) -> None:
        super().__init__(message, key, value, allowed, nearest)
        self.message = message
        self.key = key
        self.value = value
        self.allowed = allowed
        self.nearest = nearest

    def __str__(self) -> str:
        return self.message


class TraceError(ZetaError, ValueError):
    """A trace that cannot be read or replayed; `line` (1-based, header included) where one line is at fault."""

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message, line)
        self.message = message
        self.line = line

    def __str__(self) -> str:
        return self.message


class MissingExtraError(ZetaError, ImportError):
    """An optional package is not installed.

    Parameters
    ----------
    what : str
        What was asked for, as the start of a sentence: "reading parquet".
    packages : sequence of str
        The packages that it needs.
    extra : str
        The extra of ``zeta-router`` that brings them.
    """

    def __init__(self, what: str, packages: Sequence[str], extra: str) -> None:
        super().__init__(what, tuple(packages), extra)
        self.what = what
        self.packages = tuple(packages)
        self.extra = extra

    def __str__(self) -> str:
        return f"{self.what} needs {' and '.join(self.packages)}; get it with: pip install 'zeta-router[{self.extra}]'"


class ClosedError(ZetaError):
    """The object was closed, or belongs to the process that this one was forked from."""


class NotReadyError(ZetaError):
    """The object exists but cannot serve yet, or not any more."""


class UnknownTicket(ZetaError, KeyError):
    """A ticket that this router never issued, or whose request ended so long ago that it is no longer kept."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class MonitorError(ZetaError):
    """The monitor itself failed. A missing reading is no error; it is ``None`` with an age."""


class ProbeUnavailable(MonitorError):
    """A probe's source (driver, file, endpoint) is absent here."""


class ForecastError(ZetaError):
    """The forecaster failed in a way that its fallback cannot hide."""


class ModelLoadError(ForecastError):
    """A model file was refused: too large, wrong hash, an operator that is not allowed, external data."""


class SchemaMismatch(ForecastError):
    """A model file was made for other inputs or outputs than this version computes."""


class Rejected(ZetaError):
    """`Router.lease` was refused. Other calls return the outcome as a value.

    Parameters
    ----------
    outcome : str
        The final `zeta.Outcome` of the request (outcomes are strings).
    eta_ms : float or None
        When it could have started, in milliseconds from now; ``None`` where no estimate exists.
    retry_after_s : float or None
        How long to wait before trying again, in seconds.
    """

    def __init__(self, outcome: str, eta_ms: float | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(outcome, eta_ms, retry_after_s)
        self.outcome = outcome
        self.eta_ms = eta_ms
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        eta = "" if self.eta_ms is None else f"; it could start in {self.eta_ms:.0f} ms"
        retry = "" if self.retry_after_s is None else f"; try again in {self.retry_after_s:.1f} s"
        return f"the request ended as {self.outcome}{eta}{retry}"


class IntegrationError(ZetaError):
    """A serving stack that zeta is embedded in behaved in a way that its adapter does not know."""
