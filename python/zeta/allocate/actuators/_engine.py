"""What the actuators of all engines share: order of calls, deadline, confirmation, dry run, sentences."""

from __future__ import annotations

import abc
import json
import time
from collections.abc import Iterable, Mapping
from typing import Any

from zeta._http import Server, Unanswered
from zeta.allocate.actuators.delay import DelayMeter
from zeta.allocate.actuators.protocol import Applied, Change
from zeta.clock import Clock, SteadyClock

__all__ = ["EngineActuator", "EngineFailure", "ask", "servers_of"]

_LOOK_AGAIN_S = 0.05
_QUOTED = 200


class EngineFailure(Exception):
    """The engine did not do it; the text is a sentence for a person."""


def ask(server: Server, engine: str, call: str, body: object, until_s: float, *, absent: str) -> Any:
    """The JSON that answers ``"GET /path"`` or ``"POST /path"``; None where the answer is empty.

    Parameters
    ----------
    server : Server
    engine : str
        The engine's name in sentences.
    call : str
        Method and path.
    body : object
        Sent as JSON; None for none.
    until_s : float
        On `time.monotonic`.
    absent : str
        What a 404 means, as the end of a sentence.

    Raises
    ------
    EngineFailure
        If there is no answer, or not a good one.
    """
    method, path = call.split(" ")
    who = f"{engine} at {server.shown}"
    sent = None if body is None else json.dumps(body).encode()
    try:
        answer = server.ask(method, path, sent, until_s)
    except Unanswered as error:
        raise EngineFailure(f"{who} {error.why}") from error
    if answer.status == 404:
        raise EngineFailure(f"{who} does not know {call} (404); {absent}{_quoted(answer.body)}")
    if answer.status in (401, 403):
        raise EngineFailure(f"{who} refuses {call} ({answer.status}); pass its key in headers")
    if 300 <= answer.status < 400:
        raise EngineFailure(f"{who} answers {call} with a redirect ({answer.status}); give the engine's own address")
    if not 200 <= answer.status < 300:
        raise EngineFailure(f"{who} answers {call} with {answer.status}; see its log{_quoted(answer.body)}")
    if not answer.body.strip():
        return None
    try:
        return json.loads(answer.body)
    except ValueError as error:
        if method == "POST" and answer.body[:1] not in b"{[<":
            return None  # a plain word of consent, which some versions send
        raise EngineFailure(f"{who} answers {call} with what is no JSON; is {engine} at this address?") from error


def _quoted(body: bytes) -> str:
    text = " ".join(body[: 4 * _QUOTED].decode(errors="replace").split())[:_QUOTED]
    return f" (it says: {text})" if text else ""


class EngineActuator(abc.ABC):
    """Base of the `ResidencyActuator` for one kind of engine.

    Parameters
    ----------
    models : iterable of str or None
        The models that may be asked for; None for any.
    name, device : str
        For metrics and logs.
    deadline_s : float
        For one `load` or `unload`, in seconds, its confirmation included.
    dry_run : bool
        Say what would be done, and ask nobody anything.
    clock : Clock or None
        Where `Applied.at_ns` comes from.

    Raises
    ------
    ValueError
        If `deadline_s` is not above 0.
    """

    def __init__(
        self,
        models: Iterable[str] | None,
        *,
        name: str,
        device: str,
        deadline_s: float,
        dry_run: bool,
        clock: Clock | None,
    ) -> None:
        if not deadline_s > 0:
            raise ValueError(f"deadline_s = {deadline_s}; expected seconds above 0")
        self._models = None if models is None else frozenset(models)
        self._name, self._device, self._deadline_s, self._dry_run = name, device, deadline_s, dry_run
        self._clock = clock or SteadyClock()
        self._delays = {True: DelayMeter(), False: DelayMeter()}
        self._shown: dict[str, bool] = {}  # what a dry run has said

    @property
    def name(self) -> str:
        """How metrics and logs call it."""
        return self._name

    @property
    def delay_s(self) -> float | None:
        """Seconds from asking for a load to its confirmation: 0.9 quantile of the last 32; None before the first."""
        return self._delays[True].delay_s

    @property
    def unload_delay_s(self) -> float | None:
        """The same for unloads."""
        return self._delays[False].delay_s

    def load(self, model: str) -> Applied:
        """Makes `model` ready to serve, waits until it is, or says why not."""
        return self._move(model, True)

    def unload(self, model: str) -> Applied:
        """Frees the memory of `model`, waits until that is done, or says why not."""
        return self._move(model, False)

    def resident(self) -> frozenset[str] | None:
        """The models that are ready to serve; None where the engine does not say, and in a dry run."""
        if self._dry_run:
            return None
        try:
            return self._resident(time.monotonic() + self._deadline_s)
        except EngineFailure:
            return None

    def _move(self, model: str, want: bool) -> Applied:
        at_ns = self._clock.now_ns()
        if self._models is not None and model not in self._models:
            known = ", ".join(sorted(self._models))
            return self._failed(at_ns, f"{self._name} has no model {model!r}; it has {known}")
        if self._dry_run:
            before = self._shown.get(model)
            self._shown[model] = want
            return Applied(self._name, self._device, at_ns, _moved(model, before, want), is_in_force=False)
        from_s = time.monotonic()
        until_s = from_s + self._deadline_s
        try:
            before = self._is_resident(model, until_s)
            if before is not want:
                self._order(model, want, until_s)
                while not self._has_come(model, want, until_s):
                    left_s = until_s - time.monotonic()
                    if left_s <= 0:
                        verb = "load" if want else "unload"
                        raise EngineFailure(
                            f"{self._name} took the order to {verb} {model!r} but had not done it within "
                            f"{self._deadline_s:g} s; see its log, or give a longer deadline_s"
                        )
                    time.sleep(min(_LOOK_AGAIN_S, left_s))
                self._delays[want].note(time.monotonic() - from_s)
        except EngineFailure as failure:
            return self._failed(at_ns, str(failure))
        return Applied(self._name, self._device, at_ns, _moved(model, before, want), is_in_force=True)

    def _failed(self, at_ns: int, why: str) -> Applied:
        return Applied(self._name, self._device, at_ns, (), is_in_force=False, failure=why)

    @abc.abstractmethod
    def _is_resident(self, model: str, until_s: float) -> bool | None:
        """Whether a model is ready to serve; None while it is on its way. EngineFailure where that cannot be asked."""

    def _has_come(self, model: str, want: bool, until_s: float) -> bool:
        """Whether an order has been carried out. EngineFailure where it never will be."""
        return self._is_resident(model, until_s) is want

    @abc.abstractmethod
    def _order(self, model: str, want: bool, until_s: float) -> None:
        """Asks for a load or an unload. EngineFailure where that fails."""

    @abc.abstractmethod
    def _resident(self, until_s: float) -> frozenset[str] | None:
        """All that are ready to serve."""


def _moved(model: str, before: bool | None, want: bool) -> tuple[Change, ...]:
    return () if before is want else (Change(model, None if before is None else float(before), float(want)),)


def servers_of(addresses: Mapping[str, str], headers: Mapping[str, str] | None) -> dict[str, Server]:
    """One server per model."""
    if not addresses:
        raise ValueError("no servers; expected the address of each model's own")
    return {model: Server(address, headers) for model, address in addresses.items()}
