"""What users test with: a clock that obeys, actuators that remember, probes by script, the router's invariants."""

from __future__ import annotations

from zeta.allocate import FakeActuator, FakeResidency
from zeta.clock import VirtualClock
from zeta.monitor import FakeProbe
from zeta.testing._invariants import InvariantError, check_invariants

__all__ = ["FakeActuator", "FakeProbe", "FakeResidency", "InvariantError", "VirtualClock", "check_invariants"]
