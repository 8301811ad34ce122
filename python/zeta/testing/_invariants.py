"""What holds of a router after every call."""

from __future__ import annotations

from zeta.scheduler import Router

__all__ = ["InvariantError", "check_invariants"]


class InvariantError(AssertionError):
    """Something that must always hold does not. This is a bug in zeta; please report it with the decision log."""


def check_invariants(router: Router) -> None:
    """Checks what holds of a router whenever no call is under way.

    - Each request is in one place: submitted = ended + waiting + running, and the models' counts add up to the same.
    - No replica has more in flight than its largest window, or more KV reserved than it has.
    - Shares of models are between 0 and 1.
    - Work-conserving: no request waits that a replica could take now, but behind a larger one that waits for KV.

    Costs a look at every request: for tests.

    Raises
    ------
    InvariantError
        With the first that does not hold.
    ClosedError
        If the router is closed.
    """
    stats = router.stats()
    ended = sum(stats["outcomes"].values())
    waiting, running = stats["waiting"], stats["running"]
    _need(
        stats["submitted"] == ended + waiting + running,
        f"{stats['submitted']} submitted, but {ended} ended + {waiting} waiting + {running} running",
    )
    models = stats["models"].values()
    _need(sum(m["waiting"] for m in models) == waiting, f"{waiting} waiting, but the models say {stats['models']}")
    _need(sum(m["running"] for m in models) == running, f"{running} running, but the models say {stats['models']}")
    _need(all(0.0 <= m["share"] <= 1.0 for m in models), f"a share beyond [0, 1]: {stats['models']}")
    largest = {replica.name: replica.max_in_flight for model in router.config.models for replica in model.replicas}
    for name, replica in stats["replicas"].items():
        _need(replica["in_flight"] <= largest[name], f"replica {name} holds more than {largest[name]}: {replica}")
        _need(replica["kv_reserved"] <= replica["kv_tokens"], f"replica {name} is overbooked: {replica}")
    in_flight = sum(replica["in_flight"] for replica in stats["replicas"].values())
    _need(in_flight == running, f"{running} running, but {in_flight} in flight on replicas")
    idle = router._idle_capacity_ticket()
    _need(idle is None, f"request {idle} waits although a replica has room for it: {router.explain(idle or 0)}")


def _need(holds: bool, what: str) -> None:
    if not holds:
        raise InvariantError(what)
