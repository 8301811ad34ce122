"""Clocks that misbehave: the host's own, and the wall's."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.safety.conftest import Ask

import zeta

ROOT = Path(__file__).resolve().parents[2]
RAISED = (ValueError, KeyboardInterrupt, SystemExit, MemoryError, RecursionError)


class Failing:
    """Tells a rising time, now and then raises or answers nonsense."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = 0
        self.failures = 0

    def now_ns(self) -> object:
        self.now += self.random.randrange(10_000_000)
        if self.random.random() < 0.2:
            self.failures += 1
            if self.random.random() < 0.2:
                return self.random.choice(["soon", None, 1 << 70, -(1 << 70)])
            raise self.random.choice(RAISED)("from the clock")
        return self.now


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_clock_that_raises_is_reported_and_loses_no_ticket(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    clock = Failing(5)
    model = zeta.Model("m", 0.5, replicas=(zeta.Replica("r", max_in_flight=3),))
    with zeta.Router([model], clock=clock) as router:  # type: ignore[arg-type]
        tickets = []
        for _ in range(2000):
            tickets.append(router.submit(prompt_tokens=10, max_wait_ms=1000, deadline_ms=50))
            for lease in router.poll():
                router.first_token(lease)
                router.complete(lease, 1)
            router.advance()
        ended = sum(router.stats()["outcomes"].values())
        assert ended + router.stats()["waiting"] + router.stats()["running"] == 2000
        assert all(router.outcome(ticket) for ticket in tickets)
    assert clock.failures > 500
    assert len(told) == clock.failures


def test_a_clock_that_goes_backwards_does_not_turn_time_back() -> None:
    class Backwards:
        now = 10**12

        def now_ns(self) -> int:
            self.now -= 1_000_000
            return self.now

    model = zeta.Model("m", 0.5, replicas=(zeta.Replica("r", max_in_flight=1),))
    with zeta.Router([model], clock=Backwards()) as router:
        for _ in range(10):
            router.submit(prompt_tokens=1)
        for _ in range(10):
            (lease,) = router.poll()
            assert lease.queued_ms >= 0.0
            router.complete(lease, 1)


def test_no_native_source_reads_the_wall_clock() -> None:
    wall = re.compile(
        r"system_clock|CLOCK_REALTIME|gettimeofday|\btime\s*\(\s*(NULL|nullptr|0|&)|\bwait_until\b|sem_timedwait"
    )
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in sorted((ROOT / "csrc").rglob("*.[hc]pp"))
        if "tests" not in path.parts
        for line in path.read_text().splitlines()
        if wall.search(line)
    ]
    assert found == []


SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
static long jump(void) { static long calls; return (calls++ % 2 ? 1 : -1) * 86400L; }
int clock_gettime(clockid_t id, struct timespec* at) {
  static int (*real)(clockid_t, struct timespec*);
  if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
  int rc = real(id, at);
  if (rc == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) at->tv_sec += jump();
  return rc;
}
int gettimeofday(struct timeval* at, void* zone) {
  struct timespec now;
  (void)zone;
  clock_gettime(CLOCK_REALTIME, &now);
  at->tv_sec = now.tv_sec;
  at->tv_usec = now.tv_nsec / 1000;
  return 0;
}
time_t time(time_t* at) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (at) *at = now.tv_sec;
  return now.tv_sec;
}
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler for the preloaded clock")
def test_timers_are_on_time_while_the_wall_clock_jumps_a_day_at_every_look(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "shim.c").write_text(SHIM)
    shim = tmp_path / "shim.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", shim, tmp_path / "shim.c", "-ldl"], check=True)
    script = """
assert abs(time.time() - time.time()) > 86400
router = build(1)
submit(router); router.poll()
for _ in range(5):
    start = time.monotonic()
    waiting = router.submit(prompt_tokens=10, max_wait_ms=60)
    assert router.poll(timeout=0.03) == []
    assert 0.03 <= time.monotonic() - start
    assert router.outcome(waiting) is zeta.Outcome.QUEUED or time.monotonic() - start >= 0.06
    while router.outcome(waiting) is zeta.Outcome.QUEUED: time.sleep(0.001)
    assert 0.06 <= time.monotonic() - start < 1.0, time.monotonic() - start
assert router.ticks > 3
print("on time")
"""
    ended = ask(script, env={**os.environ, "LD_PRELOAD": str(shim)})
    assert (ended.stdout, ended.stderr) == ("on time\n", "")
