"""asyncio: `async with router.lease(...)` waits for a turn, holds it, and gives it back.

python examples/asyncio_lease.py
"""

from __future__ import annotations

import asyncio

import zeta


async def answer(router: zeta.Router, number: int) -> str:
    try:
        async with router.lease(prompt=f"question {number}", max_tokens=64, max_wait_ms=100) as lease:
            await asyncio.sleep(0.01)  # the first token comes from lease.url
            lease.first_token()
            await asyncio.sleep(0.02)  # the rest of the answer
            lease.set_output_tokens(40)
            return lease.replica
    except zeta.Rejected as refused:
        return str(refused.outcome)


async def run() -> None:
    model = zeta.Model("7b", quality=0.55, replicas=[zeta.Replica("7b-0", max_in_flight=4)])
    with zeta.Router([model]) as router:
        # Four at a time, 30 ms each: after 100 ms the last ones give up, as max_wait_ms asks.
        ends = await asyncio.gather(*(answer(router, number) for number in range(24)))
        for end in sorted(set(ends)):
            print(f"{end}: {ends.count(end)}")
        stats = router.stats()
        print(f"{stats['submitted']} submitted, {stats['waiting'] + stats['running']} left")


if __name__ == "__main__":
    asyncio.run(run())
