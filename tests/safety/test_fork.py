"""A forked child starts with an empty router; the parent notices nothing."""

from __future__ import annotations

import pytest
from tests.safety.conftest import Ask

HAMMERED = """
import warnings; warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of forks beside threads
router = build(64)
router.fileno()
def hammer():
    tokens = np.full(500, 10, np.uint32)
    while True:
        router.submit_many(prompt_tokens=tokens)
        router.submit(prompt_tokens=10, max_wait_ms=1)
        tickets, _, _ = router.poll_many(500)
        router.complete_many(tickets, tokens[:len(tickets)])
        router.cancel(router.submit(prompt_tokens=1))
for _ in range(2): threading.Thread(target=hammer, daemon=True).start()
mine = router.submit(prompt_tokens=10)

def child():
    signal.alarm(120)  # a child that hangs does so for ever; virtual machines have been seen to pause for 25 s
    assert router.stats()["submitted"] == 0
    try: router.outcome(mine)
    except zeta.UnknownTicket: pass
    else: raise AssertionError("the child knows the parent's ticket")
    ticket = router.submit(prompt_tokens=10)
    expiring = router.submit(prompt_tokens=10_000_000, max_wait_ms=1)
    (lease,) = router.poll(timeout=5)
    assert lease.ticket == ticket and router.complete(lease, 1)
    assert router.outcome(ticket) is zeta.Outcome.COMPLETED

def forked(exit):
    pid = os.fork()
    if pid == 0:
        try: child()
        except BaseException:
            import traceback; traceback.print_exc(); os._exit(1)
        exit(0)
    _, status = os.waitpid(pid, 0)
    assert status == 0, f"child {n}: status {status}"
"""


def check(ask: Ask, forks: int) -> None:
    ended = ask(HAMMERED + f"for n in range({forks}): forked(os._exit)\nassert router.stats()['submitted'] > 0", 1800)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_200_forks_beside_busy_threads_leave_working_children(ask: Ask) -> None:
    check(ask, 200)


@pytest.mark.nightly
def test_ten_thousand_forks_beside_busy_threads_leave_working_children(ask: Ask) -> None:
    check(ask, 10_000)


def test_children_that_end_as_interpreters_do_leave_normally(ask: Ask) -> None:
    ended = ask(HAMMERED + "for n in range(20): forked(sys.exit)", 120)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_child_gets_a_thread_and_timers_of_its_own(ask: Ask) -> None:
    script = """
router = build(1)
submit(router); router.poll()
pid = os.fork()
if pid == 0:
    signal.alarm(10)
    submit(router); router.poll()
    waiting = router.submit(prompt_tokens=10, max_wait_ms=5)
    while router.outcome(waiting) is not zeta.Outcome.EXPIRED_IN_QUEUE: time.sleep(0.001)
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
assert router.stats()["running"] == 1
"""
    ended = ask(script)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_leases_work_in_a_child_of_a_parent_that_leases(ask: Ask) -> None:
    script = """
router = build(1)
async def once():
    async with router.lease(prompt_tokens=10) as first:
        async def second():
            async with router.lease(prompt_tokens=10): pass
        task = asyncio.create_task(second())
        await asyncio.sleep(0.01)
        first.done()
        await task
asyncio.run(once())
pid = os.fork()
if pid == 0:
    signal.alarm(10)
    asyncio.run(once())
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
asyncio.run(once())
assert router.stats()["outcomes"]["completed"] == 4
"""
    ended = ask(script)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_childs_exit_writes_nothing_into_the_parents_decision_log(ask: Ask, tmp_path: object) -> None:
    log = f"{tmp_path}/run.log"
    script = f"""
router = build(decision_log={log!r}, background=False)
submit(router, 5)
for n in range(5):
    if os.fork() == 0: submit(router, 7); sys.exit(0)
    os.wait()
router.close()
print(zeta.replay_log({log!r}))
"""
    ended = ask(script)
    assert "events=5" in ended.stdout, ended
    assert "first_difference=None, cut_bytes=0" in ended.stdout
