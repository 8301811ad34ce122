"""Sessions of ONNX Runtime across forks and at the end of the process."""

from __future__ import annotations

import pytest
from tests.safety.conftest import Ask

SESSIONS = """
import warnings; warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of forks beside threads
from zeta.forecast.artefact import Schema
from zeta.forecast.onnx import NativeNet, PackageNet
from zeta.testing.onnx_model import mlp_model
schema = Schema.current()
features = np.random.default_rng(0).standard_normal((6, schema.features)).astype(np.float32)
def make(form, seed=0, **options):
    model = mlp_model(schema, seed=seed)
    return PackageNet(model, schema) if form == "package" else NativeNet(model, schema, max_rows=6, **options)
"""

FORKED = """
def forked(net, want, leave):
    pid = os.fork()
    if pid == 0:
        signal.alarm(120)  # a child that hangs does so for ever; virtual machines have been seen to pause for 25 s
        try:
            assert np.array_equal(net.run(features), want)
            if leave == "drop": net = None
        except BaseException:
            import traceback; traceback.print_exc(); os._exit(1)
        if leave == "_exit": os._exit(0)
        sys.exit(0)
    _, status = os.waitpid(pid, 0)
    assert status == 0, f"child: status {status}"
"""


@pytest.mark.parametrize("form", ["native", "package"])
def test_a_forked_child_makes_its_own_session_and_ends_cleanly(ask: Ask, form: str) -> None:
    ended = ask(
        f"{SESSIONS}{FORKED}"
        f"net = make('{form}', **({{}} if '{form}' == 'package' else dict(hang_limit_us=10_000)))\n"
        "want = net.run(features)\n"
        "for n in range(15): forked(net, want, ('exit', '_exit', 'drop')[n % 3])\n"
        "assert np.array_equal(net.run(features), want)\n",
        timeout_s=300,
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_forks_beside_busy_sessions_leave_working_children(ask: Ask) -> None:
    ended = ask(
        f"{SESSIONS}{FORKED}"
        "net = make('native'); want = net.run(features)\n"
        "def run_and_renew():\n"
        "    while True:\n"
        "        other = make('native', seed=1)\n"
        "        for _ in range(50): other.run(features)\n"
        "for _ in range(2): threading.Thread(target=run_and_renew, daemon=True).start()\n"
        "for n in range(60): forked(net, want, '_exit')\n",
        timeout_s=300,
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_grandchild_too_makes_its_own(ask: Ask) -> None:
    ended = ask(
        f"{SESSIONS}{FORKED}"
        "net = make('native'); want = net.run(features)\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    signal.alarm(120)\n"
        "    forked(net, want, 'exit'); net.run(features); forked(net, want, 'exit'); sys.exit(0)\n"
        "assert os.waitpid(pid, 0)[1] == 0\n",
        timeout_s=300,
    )
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("form", ["native", "package"])
def test_the_process_ends_with_sessions_alive(ask: Ask, form: str) -> None:
    ended = ask(
        f"{SESSIONS}nets = [make('{form}') for _ in range(3)]\n"
        f"nets.append(make('native', hang_limit_us=10_000))\n"
        "for net in nets: net.run(features)\n"
        "def busy():\n"
        "    while True: make('native').run(features)\n"
        "threading.Thread(target=busy, daemon=True).start()\n"
        "time.sleep(0.05)\n"
        "sys.exit(7)\n"
    )
    assert (ended.returncode, ended.stderr) == (7, "")


def test_a_session_brings_no_thread_and_no_descriptor(ask: Ask) -> None:
    """ONNX Runtime from 1.29 on would start a thread that sends telemetry."""
    ended = ask(
        f"{SESSIONS}"
        "def held(): return [sorted(os.listdir(f'/proc/self/{kind}')) for kind in ('task', 'fd')]\n"
        "before = held()\n"
        "net = make('native'); net.run(features)\n"
        "assert held() == before, (before, held())\n"
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_sessions_come_and_go_without_leaks(ask: Ask) -> None:
    ended = ask(
        f"{SESSIONS}"
        "def churn(times):\n"
        "    for _ in range(times): make('native', hang_limit_us=10_000).run(features)\n"
        "    return int(open('/proc/self/statm').read().split()[1]) * 4096\n"
        "churn(100); before = churn(50); after = churn(200)\n"
        "assert after - before < 4 << 20, (before, after)\n"
        "assert len(os.listdir('/proc/self/fd')) < 10\n"
    )
    assert (ended.returncode, ended.stderr) == (0, "")
