"""Values that every room of the package shares."""

from __future__ import annotations

import enum

__all__ = ["Outcome"]


class Outcome(enum.StrEnum):
    """What can become of a request. Each request ends in exactly one final outcome.

    Members stand in the order of the core's codes, so ``Outcome.from_code(code)`` is a lookup. Being strings, they
    serve as metric labels as they are.
    """

    QUEUED = "queued"
    PLACED = "placed"
    COMPLETED = "completed"
    REJECTED_CAPACITY = "rejected_capacity"
    REJECTED_INFEASIBLE = "rejected_infeasible"
    REJECTED_NO_REPLICA = "rejected_no_replica"
    EXPIRED_IN_QUEUE = "expired_in_queue"
    CANCELLED = "cancelled"
    CANCELLED_RUNNING = "cancelled_running"
    FAILED_REPLICA = "failed_replica"
    FAILED_TIMEOUT = "failed_timeout"

    @property
    def is_final(self) -> bool:
        """Whether the request's life ends with this outcome."""
        return self is not Outcome.QUEUED and self is not Outcome.PLACED

    @property
    def code(self) -> int:
        """The core's integer for this outcome."""
        return _CODES[self]

    @classmethod
    def from_code(cls, code: int) -> Outcome:
        """The outcome that the core calls `code`.

        Raises
        ------
        ValueError
            If the core has no such outcome.
        """
        if not 0 <= code < len(_BY_CODE):
            raise ValueError(f"outcome code {code} is unknown; expected 0 to {len(_BY_CODE) - 1}")
        return _BY_CODE[code]


_BY_CODE: tuple[Outcome, ...] = tuple(Outcome)
_CODES: dict[Outcome, int] = {outcome: code for code, outcome in enumerate(_BY_CODE)}
