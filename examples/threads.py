"""One router for many threads: some submit, some serve. Any thread may call any method.

python examples/threads.py
"""

from __future__ import annotations

import threading
import time

import zeta

PRODUCERS, WORKERS, EACH = 4, 4, 50


def submit(router: zeta.Router, tenant: str) -> None:
    for number in range(EACH):
        router.submit(prompt_tokens=100 + 20 * number, max_tokens=64, deadline_ms=2000, tenant=tenant)


def serve(router: zeta.Router, served: list[str], all_done: threading.Event) -> None:
    """One worker: holds one request at a time. `poll` waits without the GIL and answers within its timeout."""
    while not all_done.is_set():
        for lease in router.poll(max=1, timeout=0.05):
            time.sleep(0.001)  # the engine prefills
            router.first_token(lease)
            time.sleep(0.001)  # and decodes
            router.complete(lease, output_tokens=32)
            served.append(lease.replica)
            if len(served) == PRODUCERS * EACH:
                all_done.set()


def main() -> None:
    model = zeta.Model("7b", quality=0.55, replicas=[zeta.Replica(f"7b-{i}", max_in_flight=2) for i in range(2)])
    served: list[str] = []
    all_done = threading.Event()
    with zeta.Router([model], tenants=[zeta.Tenant("tenant-0", weight=2.0)]) as router:
        threads = [threading.Thread(target=submit, args=(router, f"tenant-{i}")) for i in range(PRODUCERS)]
        threads += [threading.Thread(target=serve, args=(router, served, all_done)) for _ in range(WORKERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        stats = router.stats()
        print(f"{stats['outcomes']['completed']} of {stats['submitted']} requests completed")
        for replica in sorted(set(served)):
            print(f"{replica}: {served.count(replica)}")


if __name__ == "__main__":
    main()
