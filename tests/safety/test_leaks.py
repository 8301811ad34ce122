"""Routers come and go without a trace."""

from __future__ import annotations

import json

from tests.safety.conftest import Ask


def test_a_hundred_routers_leave_no_thread_no_descriptor_and_no_memory(ask: Ask) -> None:
    script = """
import ctypes, gc, json
libc = ctypes.CDLL(None)
gc.disable()  # nothing is left to it
def state():
    libc.malloc_trim(0)  # what the allocator keeps for later is no leak
    rss = int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd")), rss
async def leased(router):
    async with router.lease(prompt_tokens=10): pass
def once(n):
    router = build(2)
    router.fileno()
    submit(router, 20)
    for lease in router.poll(timeout=1): router.complete(lease, 1)
    asyncio.run(leased(build(1)))  # dropped, not closed
    if n % 2: router.close()
for n in range(20): once(n)
before = state()
for n in range(100): once(n)
print(json.dumps([before, state()]))
"""
    ended = ask(script, 120)
    assert ended.stderr == ""
    (threads, fds, rss), (threads_after, fds_after, rss_after) = json.loads(ended.stdout)
    assert (threads_after, fds_after) == (threads, fds)
    assert rss_after - rss < 4 << 20


def test_a_configured_but_unused_router_has_no_thread_and_opens_nothing(ask: Ask) -> None:
    script = """
def state(): return len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))
before = state()
router = build()
assert state() == before, (before, state())
submit(router)
assert state()[0] == before[0] + 1
router.close()
assert state() == before
"""
    ended = ask(script)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_two_routers_in_one_process_do_not_touch_each_other(ask: Ask) -> None:
    script = """
a, b = build(1), build(1)
fd_a, fd_b = a.fileno(), b.fileno()
submit(a, 2)
import select
assert select.select([fd_a, fd_b], [], [], 0)[0] == [fd_a]
a.poll(); a.close()
submit(b); (lease,) = b.poll(); b.complete(lease, 1)
assert b.stats()["outcomes"]["completed"] == 1
waiting = [b.submit(prompt_tokens=1) for _ in range(2)][1]
expiring = b.submit(prompt_tokens=1, max_wait_ms=5)
while b.outcome(expiring) is zeta.Outcome.QUEUED: time.sleep(0.001)
"""
    ended = ask(script)
    assert (ended.returncode, ended.stderr) == (0, "")
