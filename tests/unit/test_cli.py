"""Claims about the command line: what it accepts, what it prints, how it fails."""

from __future__ import annotations

import importlib.machinery
import importlib.metadata
import importlib.util
import io
import json
import os
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest

import zeta
from zeta.cli import main
from zeta.cli._shared import print_table
from zeta.sim.results import ReplayResult
from zeta.sim.spec import Progress, ReplaySpec
from zeta.sim.workload import Burst

FLEET = '[[models]]\nname = "a"\nquality = 0.5\n[[models.replicas]]\nname = "a-0"\n[scheduler]\npolicy = "boost"\n'


class FakeReplay:
    """Stands where the simulator is and remembers what it was asked."""

    def __init__(self) -> None:
        self.specs: list[ReplaySpec] = []

    def run_replay(self, spec: ReplaySpec, progress: Progress) -> ReplayResult:
        self.specs.append(spec)
        progress(0.5, "half")
        return ReplayResult(trace="t", fleet=spec.fleet_name, load=spec.load, requests=0, results=())


@pytest.fixture
def replayed(monkeypatch: pytest.MonkeyPatch) -> FakeReplay:
    fake = FakeReplay()
    module = types.ModuleType("zeta.sim.replay")
    module.__spec__ = importlib.machinery.ModuleSpec("zeta.sim.replay", None)
    module.run_replay = fake.run_replay  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "zeta.sim.replay", module)
    return fake


Said = Callable[..., tuple[int, str, str]]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Said:
    def run(*argv: str) -> tuple[int, str, str]:
        try:
            code = main(argv)
        except SystemExit as leaving:
            code = int(leaving.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return run


# doctor


def test_doctor_names_the_build_and_every_required_package(say: Said) -> None:
    code, out, _ = say("doctor")
    assert code == 0
    for words in (f"zeta {zeta.__version__}", zeta.build_info()["compiler"], "numpy", "onnxruntime", "nvidia-ml-py"):
        assert words in out


def test_doctor_speaks_json(say: Said) -> None:
    code, out, _ = say("doctor", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["build"] == json.loads(json.dumps(zeta.build_info()))
    assert found["required"]["numpy"] == importlib.metadata.version("numpy")
    assert set(found["extras"]) >= {"cli", "train", "serve"}
    assert "all" not in found["extras"]


def test_doctor_reads_the_host_and_tells_known_fields_from_unknown_ones(say: Said) -> None:
    _, out, _ = say("doctor", "--json")
    host = json.loads(out)["probes"]["host"]
    assert (host["state"], host["message"]) == ("reading", "")
    assert host["known"]["cpu_limit"] > 0
    assert {"cpu_utilisation", "process_cpus"} <= host["known"].keys()
    assert None not in host["known"].values()
    _, out, _ = say("doctor")
    assert f"probe host        reading: {len(host['known'])} of 13 fields known" in out


def test_doctor_says_how_to_get_what_is_missing(say: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    known = importlib.metadata.version

    def without_rich(name: str) -> str:
        if name in ("rich", "onnxruntime"):
            raise importlib.metadata.PackageNotFoundError(name)
        return known(name)

    monkeypatch.setattr(importlib.metadata, "version", without_rich)
    _, out, _ = say("doctor")
    assert "rich missing; pip install 'zeta-router[cli]'" in out
    assert "missing; pip install onnxruntime" in out


def test_doctor_imports_no_heavy_package() -> None:
    script = "import sys; from zeta.cli import main; main(['doctor']); print(*sorted(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    heavy = {"onnxruntime", "pynvml", "torch", "plotly", "pyarrow", "pandas"}
    assert not heavy & {name.split(".")[0] for name in done.stderr.split()}


# check


def test_check_says_what_a_file_amounts_to(say: Said, tmp_path: Path) -> None:
    (tmp_path / "zeta.toml").write_text(FLEET)
    code, out, err = say("check", str(tmp_path / "zeta.toml"))
    assert (code, err) == (0, "")
    assert "zeta.toml: valid" in out
    assert "model a, quality 0.5: a-0" in out
    assert "policy boost" in out


def test_check_fails_with_one_line_and_no_traceback(say: Said, tmp_path: Path) -> None:
    (tmp_path / "zeta.toml").write_text(FLEET.replace("quality", "qualty"))
    code, out, err = say("check", str(tmp_path / "zeta.toml"))
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert err.startswith("zeta: ")
    assert "did you mean 'quality'?" in err


# usage


@pytest.mark.parametrize("argv", [[], ["frobnicate"], ["check"], ["replay"], ["replay", "t.csv", "--load", "fast"]])
def test_wrong_usage_ends_with_2(say: Said, replayed: FakeReplay, argv: list[str]) -> None:
    code, _, err = say(*argv)
    assert code == 2
    assert "usage:" in err
    assert not replayed.specs


def test_the_help_lists_only_what_exists(say: Said, replayed: FakeReplay) -> None:
    _, out, _ = say("--help")
    listed = [
        line.split()[0]
        for line in out.split("COMMAND\n")[-1].splitlines()
        if line.startswith("    ") and line[4] != " "
    ]
    assert listed == ["doctor", "check", "demo", "replay", "train", "backtest", "serve", "top", "engine"]
    assert not replayed.specs


def test_the_version_is_zeta_s(say: Said) -> None:
    assert say("--version")[1] == f"zeta {zeta.__version__}\n"


def test_a_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "zeta.toml").write_text(FLEET)
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "zeta", "check", str(tmp_path / "zeta.toml")]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


# replay


def test_replay_asks_for_what_its_options_say(say: Said, replayed: FakeReplay, tmp_path: Path) -> None:
    (tmp_path / "fleet.toml").write_text(FLEET)
    argv = (
        f"replay day.csv.gz --fleet {tmp_path}/fleet.toml --policy even max-weight --order fifo --admission reject "
        f"--load 1.5 --slo mixed --mix shift --burst a:3:600:120 --burst q:7b:2:0:5 --actuation-delay 30 "
        f"--complexity c.csv --seed 4 5 --seed 6 --capacity-at 0.99 --ties keep --ticks {tmp_path}/t.jsonl"
    )
    code, _, err = say(*argv.split())
    assert (code, err) == (0, "")
    (spec,) = replayed.specs
    assert spec == ReplaySpec(
        trace=Path("day.csv.gz"),
        fleet=spec.fleet,
        fleet_name=f"{tmp_path}/fleet.toml",
        policies=("even", "max-weight"),
        order="fifo",
        admission="reject",
        load=1.5,
        slo="mixed",
        mix="shift",
        bursts=(Burst("a", 3.0, 600.0, 120.0), Burst("q:7b", 2.0, 0.0, 5.0)),
        actuation_delay_s=30.0,
        complexity=Path("c.csv"),
        seeds=(4, 5, 6),
        capacity_at=0.99,
        ties="keep",
        ticks=tmp_path / "t.jsonl",
    )
    assert spec.fleet.models[0].name == "a"


def test_replay_without_options_runs_the_default_fleet_s_policy(say: Said, replayed: FakeReplay) -> None:
    say("replay", "day.csv")
    assert replayed.specs == [ReplaySpec(trace=Path("day.csv"))]


def test_a_fleet_s_own_policy_is_its_default_but_replay_queues(say: Said, replayed: FakeReplay, tmp_path: Path) -> None:
    (tmp_path / "fleet.toml").write_text(FLEET + 'admission = "reject"\n')
    say("replay", "day.csv", "--fleet", str(tmp_path / "fleet.toml"))
    assert (replayed.specs[0].policies, replayed.specs[0].admission) == (("boost",), "queue")


def test_policy_all_means_each_once(say: Said, replayed: FakeReplay) -> None:
    say("replay", "day.csv", "--policy", "even", "all")
    assert replayed.specs[0].policies == zeta.config.POLICIES


def test_the_embedded_trace_is_called_by_its_name(say: Said, replayed: FakeReplay) -> None:
    say("replay", "azure_conv_2023")
    assert replayed.specs[0].trace is None


def test_replay_writes_json_to_a_file_or_the_output(say: Said, replayed: FakeReplay, tmp_path: Path) -> None:
    say("replay", "day.csv", "--json", str(tmp_path / "out.json"), "--load", "2")
    _, out, _ = say("replay", "day.csv", "--json", "-", "--load", "2")
    written = json.loads((tmp_path / "out.json").read_text())
    assert written == json.loads(out)
    assert (written["fleet"], written["load"], written["results"]) == ("default", 2.0, [])
    assert len(replayed.specs) == 2


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ("--load 0", "load = 0.0; expected"),
        ("--seed 1 -2", "seed"),
        ("--burst large:3", "expected MODEL:FACTOR:START_S:SECONDS"),
        ("--capacity-at 1", "an attainment between 0 and 1"),
        ("--actuation-delay -1", "0 to 86400 s"),
        ("--fleet /nonexistent.toml", "cannot read /nonexistent.toml"),
        ("--json /nonexistent/out.json", "cannot write /nonexistent/out.json"),
        ("--ticks /", "cannot write /"),
    ],
)
def test_replay_refuses_before_it_begins(say: Said, replayed: FakeReplay, argv: str, said: str) -> None:
    code, _, err = say("replay", "day.csv", *argv.split())
    assert code == 2
    assert said in err
    assert "Traceback" not in err
    assert not replayed.specs


def test_html_without_plotly_is_refused_before_the_replay(
    say: Said, replayed: FakeReplay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "plotly" else find(name))
    code, _, err = say("replay", "day.csv", "--html", str(tmp_path / "r.html"))
    assert code == 2
    assert "pip install 'zeta-router[cli]'" in err
    assert not replayed.specs


# tables


def test_a_table_that_is_no_terminal_s_is_plain_and_aligned() -> None:
    out = io.StringIO()
    print_table(["name", "n"], [["a", "10"], ["long", "5"]], file=out)
    assert out.getvalue() == "name   n\na     10\nlong   5\n"
