"""The interpreter ends with work in flight: nothing hangs, nothing aborts, the exit code is the host's own."""

from __future__ import annotations

import pytest
from tests.safety.conftest import Ask

WORK_IN_FLIGHT = "router = build(); submit(router, 10); leases = router.poll(max=2)\n"
BLOCKED_POLLERS = WORK_IN_FLIGHT + (
    "router.poll()\n"
    "for _ in range(4): threading.Thread(target=lambda: router.poll(timeout=None), daemon=True).start()\n"
)
BUSY_POLLERS = """
router = build()
def serve():
    while True:
        for lease in router.poll(timeout=None):
            router.first_token(lease)
            router.complete(lease, 3)
def ask_for():
    while True: router.submit(prompt_tokens=10, deadline_ms=100, max_wait_ms=1)
for target in (serve, serve, ask_for): threading.Thread(target=target, daemon=True).start()
time.sleep(0.02)
"""
BUSY_BATCHES = """
router = build(1000)
tokens = np.full(20_000, 10, np.uint32)
def churn():
    while True:
        router.submit_many(prompt_tokens=tokens)
        tickets, _, _ = router.poll_many(20_000)
        router.complete_many(tickets, tokens[:len(tickets)])
for _ in range(2): threading.Thread(target=churn, daemon=True).start()
time.sleep(0.02)
"""
WAITING_LEASES = """
router = build(1)
async def hold():
    async with router.lease(prompt_tokens=10): await asyncio.sleep(60)
def loop(): asyncio.run(many())
async def many(): await asyncio.gather(*(hold() for _ in range(5)))
threading.Thread(target=loop, daemon=True).start()
time.sleep(0.05)
"""
LOGGED = "router = build(decision_log='/dev/null'); submit(router, 10); router.poll()\n"
SCENARIOS = {
    "work in flight": WORK_IN_FLIGHT,
    "blocked pollers": BLOCKED_POLLERS,
    "busy pollers": BUSY_POLLERS,
    "busy batches": BUSY_BATCHES,
    "waiting leases": WAITING_LEASES,
    "decision log": LOGGED,
    "cycle": WORK_IN_FLIGHT + "router.me = router; del router\n",
    "closed": BLOCKED_POLLERS + "threading.excepthook = lambda _: None; router.close()\n",
}


def check(ask: Ask, scenario: str, runs: int) -> None:
    for run in range(runs):
        code = run % 3  # the host's own
        ended = ask(SCENARIOS[scenario] + (f"sys.exit({code})" if code else ""), timeout_s=30)
        assert (ended.returncode, ended.stderr) == (code, ""), f"run {run}"


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_interpreter_exits_as_if_zeta_were_not_there(ask: Ask, scenario: str) -> None:
    check(ask, scenario, 6)


@pytest.mark.nightly
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_200_interpreters_exit_as_if_zeta_were_not_there(ask: Ask, scenario: str) -> None:
    check(ask, scenario, 200)


def test_an_uncaught_exception_is_the_only_thing_told(ask: Ask) -> None:
    ended = ask(BLOCKED_POLLERS + "raise SystemError('the host fails')")
    assert ended.returncode == 1
    assert ended.stderr.strip().endswith("SystemError: the host fails")
    assert "zeta" not in ended.stderr


def test_the_decision_log_is_whole_at_exit(ask: Ask, tmp_path: object) -> None:
    log = f"{tmp_path}/run.log"
    assert (
        ask(
            f"router = build(decision_log={log!r}, background=False); submit(router, 10); router.keep = router"
        ).returncode
        == 0
    )
    told = ask(f"print(zeta.replay_log({log!r}))")
    assert "events=10" in told.stdout, told
    assert "first_difference=None, cut_bytes=0" in told.stdout
