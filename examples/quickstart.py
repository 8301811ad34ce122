"""Two models on one GPU: submit requests, take the ones whose turn has come, ask why.

python examples/quickstart.py
"""

from __future__ import annotations

from typing import Any

import zeta

MODELS = [
    zeta.Model("7b", quality=0.55, device="gpu0", replicas=[zeta.Replica("7b-0", max_in_flight=1)]),
    zeta.Model("14b", quality=0.70, device="gpu0", replicas=[zeta.Replica("14b-0", max_in_flight=1)]),
]
REQUESTS: list[tuple[str, dict[str, Any]]] = [
    ("a chat, first token within 1 s", {"prompt_tokens": 300, "deadline_ms": 1000, "complexity": 0.2}),
    ("a hard question", {"prompt_tokens": 900, "deadline_ms": 5000, "complexity": 0.9}),
    ("only the 14b will do", {"prompt_tokens": 400, "deadline_ms": 5000, "models": ["14b"]}),
    ("a night job", {"prompt_tokens": 2000, "priority": 3}),
]


def main() -> None:
    with zeta.Router(MODELS, devices=[zeta.Device("gpu0")]) as router:
        names = {router.submit(max_tokens=200, **request): name for name, request in REQUESTS}

        while router.stats()["waiting"] + router.stats()["running"]:
            for lease in router.poll(timeout=1.0):
                # Here your server sends the request to `lease.url` and reads the answer.
                router.first_token(lease)
                router.complete(lease, output_tokens=150)
                why = router.explain(lease.ticket)
                print(f"{names[lease.ticket]:32} -> {lease.model:4} {why['reason']}, {lease.queued_ms:.2f} ms queued")

        counts = {name: count for name, count in router.stats()["outcomes"].items() if count}
        print("outcomes:", counts)


if __name__ == "__main__":
    main()
