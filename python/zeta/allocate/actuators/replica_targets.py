"""Handing out how many replicas each model should have: to a callable or to a command."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping, Sequence

from zeta.allocate.actuators.delay import DelayMeter
from zeta.allocate.actuators.protocol import Applied, Change

__all__ = ["ReplicaTargetActuator"]

_MOST = 4096
_QUOTED = 200


class ReplicaTargetActuator:
    """Tells whoever starts and stops replicas how many there should be. One caller at a time; not the tick: it blocks.

    Parameters
    ----------
    carry_out : callable or sequence of str
        Called with the model and its target; what it raises is the failure. It owes its own deadline. Or a command and
        its arguments, run without a shell, in which ``{model}`` and ``{replicas}`` are replaced.
    name, device : str
        For metrics and logs.
    deadline_s : float
        After which a command is killed, in seconds.
    dry_run : bool, default True
        Say what would be handed out, and call nobody.

    Raises
    ------
    ValueError
        If the command does not name both, or the deadline is not above 0.
    """

    def __init__(
        self,
        carry_out: Callable[[str, int], object] | Sequence[str],
        *,
        name: str = "replica-targets",
        device: str = "fleet",
        deadline_s: float = 30.0,
        dry_run: bool = True,
    ) -> None:
        if not deadline_s > 0:
            raise ValueError(f"deadline_s = {deadline_s}; expected seconds above 0")
        if isinstance(carry_out, str):
            raise ValueError(f"carry_out is the text {carry_out!r}; expected a list of arguments, as no shell reads it")
        self._call: Callable[[str, int], object]
        if callable(carry_out):
            self._call = carry_out
        else:
            command = [str(each) for each in carry_out]
            if not all(any(mark in each for each in command[1:]) for mark in ("{model}", "{replicas}")):
                raise ValueError(f"the command is {command!r}; expected {{model}} and {{replicas}} among its arguments")
            self._call = lambda model, target: _run(command, model, target, deadline_s)
        self._name, self._device, self._dry_run = name, device, dry_run
        self._delay = DelayMeter()
        self._in_force: dict[str, int] = {}

    @property
    def name(self) -> str:
        """How metrics and logs call it."""
        return self._name

    @property
    def delay_s(self) -> float | None:
        """Seconds that handing a target out took: the 0.9 quantile of the last 32. Not the start-up of a replica."""
        return self._delay.delay_s

    @property
    def in_force(self) -> dict[str, int]:
        """The last target that was handed out, or shown in a dry run, by model."""
        return dict(self._in_force)

    def apply(self, targets: Mapping[str, int], at_ns: int) -> Applied:
        """Hands out the targets that differ from the last ones; each model on its own.

        Parameters
        ----------
        targets : mapping of str to int
            Replicas to have, 0 to 4096, such as ``{"7b": scaling.target}``. Models that are not named stay as they are.
        at_ns : int
            When that was decided.

        Returns
        -------
        Applied
            `Applied.changes` are those that were carried out; `Applied.failure` names the models whose target stays.
        """
        done, failures = [], []
        for model, target in targets.items():
            before = self._in_force.get(model)
            if before == target:
                continue
            why = _refused(model, target) or (None if self._dry_run else self._hand_out(model, target))
            if why is None:
                self._in_force[model] = int(target)
                done.append(Change(model, None if before is None else float(before), float(target)))
            else:
                failures.append(f"{model!r} stays at {'its replicas' if before is None else before}: {why}")
        failure = "; ".join(failures) or None
        return Applied(self._name, self._device, at_ns, tuple(done), not self._dry_run and failure is None, failure)

    def _hand_out(self, model: str, target: int) -> str | None:
        from_s = time.monotonic()
        try:
            self._call(model, target)
        except _CommandFailed as error:
            return str(error)
        except Exception as error:  # whatever a stranger's function raises
            return f"the function for targets raised {type(error).__name__}: {error}; see its own log"
        self._delay.note(time.monotonic() - from_s)
        return None


class _CommandFailed(Exception):
    pass


def _refused(model: str, target: int) -> str | None:
    if isinstance(target, bool) or target != int(target) or not 0 <= target <= _MOST:
        return f"{target!r} replicas; expected a whole number from 0 to {_MOST}"
    if model.startswith("-"):
        return "a model's name that begins with '-' would be read as an option; rename the model"
    return None


def _run(command: Sequence[str], model: str, target: int, deadline_s: float) -> None:
    filled = [each.replace("{replicas}", str(target)).replace("{model}", model) for each in command]
    try:
        ended = subprocess.run(
            filled,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=deadline_s,
            check=False,
            text=True,
            errors="replace",
        )
    except subprocess.TimeoutExpired:
        raise _CommandFailed(f"{filled[0]} was killed after {deadline_s:g} s; give it longer") from None
    except OSError as error:
        raise _CommandFailed(f"{filled[0]} cannot be run ({error.strerror}); give the path of a program") from error
    if ended.returncode != 0:
        said = " ".join((ended.stderr or ended.stdout).split())[:_QUOTED]
        raise _CommandFailed(f"{filled[0]} ended with {ended.returncode}" + (f" and says: {said}" if said else ""))
