"""What a gateway costs: zeta before the same engines as its peers, on one core, in turn.

``python -m bench.macro.gateway [--only NAME …] [--rounds N] [--json OUT]``. The gateway has one core; the fake engines
and the load generator (``bench/native/http_load.cpp``) have another. Requests of 1 kB, answers of 2 kB; zeta runs with
a key, its decision and its metrics. Every round starts each contender afresh and begins with another one.

Measured of each: latency on one connection; requests per second on 16 that ask again when they are answered; time to
first token of paced streams; and the highest rate of chunks, each stream one per 20 ms, that still arrives: at least
95 % of it, the 99th percentile of their delay at most 3 ms. *Added* is less what the engines alone take in that round.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import http.client
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bench import machine, native
from bench.baselines.gateways import KEY, MODEL, Gateway, Place, by_name
from bench.harness import Absent, Spread
from bench.native.http_load import Rig
from bench.processes import Program, cores, free_ports, machine_busy_s
from bench.report import Target, print_table, print_targets

__all__ = ["PHASES", "measure"]

REQUEST_BYTES, REPLY_BYTES, CHUNK_BYTES = 1_024, 2_048, 240
CONNECTIONS = 16
PACE_MS, CHUNKS_OF_A_STREAM = 20, 100
RATES = (10_000, 20_000, 30_000, 40_000, 50_000)
LOW_RATES = (5_000, 2_000, 1_000)  # where even the first one is too much
TRIES, CALM = 3, 0.1  # a turn in which other programs took more of a core than that is repeated
KEPT_PART, CHUNK_DELAY_P99_US = 0.95, 3_000.0
PHASES = ("one", "many", "ttft", "chunks")
DIRECT = "engines alone"


@dataclasses.dataclass(slots=True)
class Turn:
    """One contender in one round."""

    rig: Rig
    ports: Sequence[int]
    program: Program | None  # None: the engines alone
    pause: Callable[[str], None]  # told "begin" and "end" around everything that is timed

    def load(self, **options: Any) -> dict[str, Any]:
        """One command of the load generator; again while others disturb it, and then the calmest counts."""
        tries: list[dict[str, Any]] = []
        while len(tries) < TRIES and all(each["others_cpu"] > CALM for each in tries):
            self.pause("begin")
            try:
                tries.append(self._load_once(**options))
            finally:
                self.pause("end")
        return min(tries, key=lambda each: float(each["others_cpu"])) | {"tries": len(tries)}

    def _load_once(self, **options: Any) -> dict[str, Any]:
        sizes = {"request_bytes": REQUEST_BYTES, "reply_bytes": REPLY_BYTES, "chunk_bytes": CHUNK_BYTES}
        began, used = time.monotonic(), self._cpu_s()
        found = self.rig.load(ports=",".join(map(str, self.ports)), key=KEY, model=MODEL, **(sizes | options))
        wall_s = time.monotonic() - began
        machine_s, rig_s, gateway_s = (now - then for now, then in zip(self._cpu_s(), used, strict=True))
        found["gateway_cpu"] = gateway_s / wall_s
        found["others_cpu"] = max(0.0, machine_s - rig_s - gateway_s) / wall_s
        found["cpu_us_per_request"] = 1e6 * gateway_s / max(1, found["answered"])
        found["cpu_us_per_chunk"] = 1e6 * gateway_s / max(1, found["chunks"])
        return found

    def _cpu_s(self) -> tuple[float, float, float]:
        """What the machine, the load generator and the contender have used so far."""
        return machine_busy_s(), self.rig.cpu_s(), self.program.cpu_s() if self.program else 0.0

    def one(self) -> dict[str, Any]:
        return self.load(connections=1, warm=0.3, seconds=1.5)

    def many(self) -> dict[str, Any]:
        return self.load(connections=CONNECTIONS, warm=0.4, seconds=2.0)

    def ttft(self) -> dict[str, Any]:
        """Twenty streams of ten chunks each 10 ms; the first after 10 ms, when its head has long been sent."""
        paced = {"stream": True, "usage": True, "chunks": 10, "pace_us": 10_000, "first_us": 10_000}
        return self.load(connections=20, warm=0.4, seconds=2.0, stagger=0.1, **paced)

    def chunks(self) -> dict[str, Any]:
        """Up the rates until one is not kept, twice; down where none is."""
        tried: list[dict[str, Any]] = []
        failures = 0
        for rate in RATES:
            tried.append(self._chunks_at(rate))
            failures += not tried[-1]["is_kept"]
            if failures == 2 or (failures and tried[-1]["chunks_per_s"] < 0.7 * rate):
                break
        if not any(each["is_kept"] for each in tried):
            for rate in LOW_RATES:
                tried.append(self._chunks_at(rate))
                if tried[-1]["is_kept"]:
                    break
        return {"kept_per_s": max((each["offered_per_s"] for each in tried if each["is_kept"]), default=0), "at": tried}

    def _chunks_at(self, rate: int) -> dict[str, Any]:
        span_s = PACE_MS * CHUNKS_OF_A_STREAM * 1e-3
        pace_us = PACE_MS * 1_000
        found = self.load(
            connections=rate * PACE_MS // 1_000,
            stream=True,
            chunks=CHUNKS_OF_A_STREAM,
            pace_us=pace_us,
            first_us=pace_us,
            stagger=span_s,
            warm=span_s + 0.2,
            seconds=2.0,
        )
        delay = found["chunk_delay_us"]
        found["offered_per_s"] = rate
        found["is_kept"] = (
            not found["errors"]
            and delay is not None
            and found["chunks_per_s"] >= KEPT_PART * rate
            and delay["p99"] <= CHUNK_DELAY_P99_US
        )
        return found


def _wait_until_it_answers(gateway: Gateway, program: Program, port: int) -> None:
    """Until a completion comes back through it; a gateway may listen before it knows its engines."""
    body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "n=0000000000 "}], "max_tokens": 1})
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    until = time.monotonic() + gateway.start_s
    why = "nothing"
    while time.monotonic() < until and not program.has_ended:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("POST", "/v1/chat/completions", body, headers)
            answer = connection.getresponse()
            said = answer.read()
            if answer.status == 200 and b"|end" in said:
                return
            why = f"{answer.status} {said[:200]!r}"
        except (OSError, http.client.HTTPException) as error:
            why = repr(error)
        finally:
            connection.close()
        time.sleep(0.1)
    raise Absent(f"it was started and never answered ({why}); it said: {program.said()}")


@contextlib.contextmanager
def started(gateway: Gateway, rig: Rig, core: int, venvs: Sequence[Path]) -> Iterator[tuple[Program, int]]:
    """The gateway, answering, and its port; ended at the end."""
    port, spare_port = free_ports(2)
    with tempfile.TemporaryDirectory() as folder:
        place = Place(port, spare_port, rig.engines, Path(folder), venvs)
        program = Program(gateway.command(place), core, gateway.environment, Path(folder) / "log")
        try:
            _wait_until_it_answers(gateway, program, port)
            yield program, port
        finally:
            program.end()


def _pause(hook: str | None) -> Callable[[str], None]:
    def call(word: str) -> None:
        if hook is not None:
            subprocess.run([hook, word], check=True)

    return call


def measure(
    gateways: Sequence[Gateway],
    *,
    rounds: int,
    phases: Sequence[str] = PHASES,
    venvs: Sequence[Path] = (),
    hook: str | None = None,
    say: Callable[[str], Any] = lambda _: None,
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, str]]:
    """Measures all in turn.

    Returns
    -------
    turns : dict of str to list
        By contender, one entry per round: what each phase found.
    absent : dict of str to str
        What could not run, and why.
    """
    core, rig_core = cores()
    turns: dict[str, list[dict[str, Any]]] = {name: [] for name in (DIRECT, *(each.name for each in gateways))}
    absent: dict[str, str] = {}
    contenders: list[Gateway | None] = [None, *gateways]
    with Rig(core=rig_core) as rig:
        for turn in range(rounds):
            for step in range(len(contenders)):
                gateway = contenders[(step + turn) % len(contenders)]
                name = DIRECT if gateway is None else gateway.name
                if name in absent:
                    continue
                say(f"round {turn + 1} of {rounds}: {name}")
                try:
                    with contextlib.ExitStack() as stack:
                        program, ports = None, rig.engines
                        if gateway is not None:
                            program, port = stack.enter_context(started(gateway, rig, core, venvs))
                            ports = [port]
                        at = Turn(rig, ports, program, _pause(hook))
                        found = {phase: getattr(at, phase)() for phase in phases}
                        if program is not None:
                            found["resident_mb"] = program.resident_mb()
                        turns[name].append({"round": turn} | found)
                except Absent as missing:
                    absent[name] = str(missing)
                    say(f"  absent: {name}: {missing}")
    return {name: found for name, found in turns.items() if found}, absent


# --- what the rounds say together


def _spread(turns: Sequence[dict[str, Any]], *path: str, scale: float = 1.0) -> Spread | None:
    values = [value * scale for value in (_at(turn, *path) for turn in turns) if value is not None]
    return Spread.of(values) if values else None


def _at(turn: dict[str, Any], *path: str) -> Any:
    value: Any = turn
    for key in path:
        if value is None or key not in value:
            return None
        value = value[key]
    return value


def _less_direct(
    turns: Sequence[dict[str, Any]], direct: Sequence[dict[str, Any]], *path: str, scale: float = 1.0
) -> Spread | None:
    """The figure less the engines' own in the same round."""
    own = {turn["round"]: _at(turn, *path) for turn in direct}
    added = []
    for turn in turns:
        value, base = _at(turn, *path), own.get(turn["round"])
        if value is not None and base is not None:
            added.append((value - base) * scale)
    return Spread.of(added) if added else None


def summary(turns: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Per contender: each figure's median over the rounds, with the least and the most."""
    direct = turns.get(DIRECT, [])
    out: dict[str, dict[str, Any]] = {}
    for name, rounds in turns.items():
        figures: dict[str, Spread | None] = {
            "requests_per_s": _spread(rounds, "many", "per_s"),
            "latency_us_p99_at_16": _spread(rounds, "many", "latency_us", "p99"),
            "latency_us_p999_at_16": _spread(rounds, "many", "latency_us", "p999"),
            "latency_us_p50": _spread(rounds, "one", "latency_us", "p50"),
            "latency_us_p99": _spread(rounds, "one", "latency_us", "p99"),
            "added_us_p50": _less_direct(rounds, direct, "one", "latency_us", "p50"),
            "added_us_p99": _less_direct(rounds, direct, "one", "latency_us", "p99"),
            "added_ttft_ms_p50": _less_direct(rounds, direct, "ttft", "ttft_us", "p50", scale=1e-3),
            "added_ttft_ms_p99": _less_direct(rounds, direct, "ttft", "ttft_us", "p99", scale=1e-3),
            "kept_chunks_per_s": _spread(rounds, "chunks", "kept_per_s"),
            "cpu_us_per_request": _spread(rounds, "many", "cpu_us_per_request"),
            "resident_mb": _spread(rounds, "resident_mb"),
        }
        out[name] = {key: None if value is None else dataclasses.asdict(value) for key, value in figures.items()}
        out[name]["chunks"] = {
            str(rate): {
                "kept_rounds": sum(each["is_kept"] for each in at),
                "rounds": len(at),
                "delay_us_p50": statistics.median(each["chunk_delay_us"]["p50"] for each in at),
                "delay_us_p99": statistics.median(each["chunk_delay_us"]["p99"] for each in at),
                "cpu_us_per_chunk": statistics.median(each["cpu_us_per_chunk"] for each in at),
                "part_kept": statistics.median(each["chunks_per_s"] / rate for each in at),
            }
            for rate in sorted({*RATES, *LOW_RATES})
            if (
                at := [
                    each
                    for turn in rounds
                    for each in (_at(turn, "chunks", "at") or ())
                    if each["offered_per_s"] == rate and each["chunk_delay_us"]
                ]
            )
        }
        out[name]["errors"] = _errors(rounds)
        out[name]["others_cpu"] = max((found["others_cpu"] for found in _loads(rounds)), default=0.0)
    return out


def _loads(rounds: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for turn in rounds:
        for phase in PHASES:
            found = turn.get(phase)
            if found is not None:
                yield from found["at"] if phase == "chunks" else (found,)


def _errors(rounds: Sequence[dict[str, Any]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for found in _loads(rounds):
        for kind, count in found["errors_by_kind"].items():
            total[kind] = total.get(kind, 0) + count
    return total


def _ratios(turns: dict[str, list[dict[str, Any]]], name: str, other: str) -> float | None:
    """How many times as many requests per second, the median of the rounds."""
    own = {turn["round"]: _at(turn, "many", "per_s") for turn in turns.get(name, [])}
    theirs = {turn["round"]: _at(turn, "many", "per_s") for turn in turns.get(other, [])}
    each = [own[turn] / theirs[turn] for turn in own if own[turn] and theirs.get(turn)]
    return statistics.median(each) if each else None


def targets(turns: dict[str, list[dict[str, Any]]], gateways: Sequence[Gateway]) -> list[Target]:
    """What zeta promises, as far as it was measured."""
    zeta = summary(turns).get("zeta")
    if zeta is None:
        return []
    out = []
    peers = [each for each in gateways if each.kind in ("python", "rust") and each.name in turns]
    ratios = {each.name: _ratios(turns, "zeta", each.name) for each in peers}
    for name, ratio in ratios.items():
        if ratio is not None:
            gate, aim = (1.3, 2.0) if name.startswith("vllm-router") else (1.0, None)
            out.append(Target(f"requests/s on {CONNECTIONS} connections, over {name}", "×", ratio, gate, aim, True))
    for key, what, unit, gate, aim, is_least in (
        ("added_us_p50", "added p50, one connection", "µs", 250.0, 180.0, False),
        ("added_ttft_ms_p50", "added time to first token, p50", "ms", 0.5, None, False),
        (
            "kept_chunks_per_s",
            f"chunks/s kept, p99 of the delay ≤ {CHUNK_DELAY_P99_US / 1e3:.0f} ms",
            "/s",
            2e4,
            3e4,
            True,
        ),
    ):
        if zeta[key] is not None:
            out.append(Target(what, unit, zeta[key]["median"], gate, aim, is_least))
    return out


def _cell(figures: dict[str, Any], key: str, digits: int = 0) -> str:
    found = figures[key]
    if found is None:
        return ""
    median, least, most = (f"{found[each]:,.{digits}f}" for each in ("median", "least", "most"))
    return median if least == most else f"{median}\n({least}–{most})"


def show(turns: dict[str, list[dict[str, Any]]]) -> None:
    """The tables."""
    figures = summary(turns)
    most_rounds = max((len(rounds) for rounds in turns.values()), default=0)
    print_table(
        f"Gateways, one core each; median of {most_rounds} rounds (least–most)",
        [
            "",
            f"req/s\n{CONNECTIONS} conns",
            "p99 µs\nthere",
            "p50 µs\n1 conn",
            "added\np50 µs",
            "added\np99 µs",
            "added\nTTFT ms",
            "chunks/s\nkept",
            "CPU µs\n/request",
            "RSS\nMB",
            "errors",
        ],
        [
            [
                name,
                _cell(each, "requests_per_s"),
                _cell(each, "latency_us_p99_at_16"),
                _cell(each, "latency_us_p50"),
                _cell(each, "added_us_p50"),
                _cell(each, "added_us_p99"),
                _cell(each, "added_ttft_ms_p50", 2),
                _cell(each, "kept_chunks_per_s"),
                _cell(each, "cpu_us_per_request", 1),
                _cell(each, "resident_mb"),
                ", ".join(f"{count} {kind}" for kind, count in each["errors"].items()),
            ]
            for name, each in figures.items()
        ],
    )
    rates = [
        str(rate) for rate in sorted({*RATES, *LOW_RATES}) if any(str(rate) in f["chunks"] for f in figures.values())
    ]
    if rates:
        print_table(
            "Chunks relayed at so many per second: delay p50 / p99 in µs; part kept where it is below 0.99",
            ["", *(f"{int(rate):,}" for rate in rates)],
            [
                [name, *(_chunk_cell(each["chunks"].get(rate)) for rate in rates)]
                for name, each in figures.items()
                if each["chunks"]
            ],
        )


def _chunk_cell(found: dict[str, Any] | None) -> str:
    if found is None:
        return ""
    part = f" ({found['part_kept']:.2f})" if found["part_kept"] < 0.99 else ""
    return f"{found['delay_us_p50']:,.0f} / {found['delay_us_p99']:,.0f}{part}"


def joined(old: dict[str, Any], turns: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """The rounds of a result file with those just measured, numbered on."""
    before: dict[str, list[dict[str, Any]]] = old["turns"]
    first = 1 + max((turn["round"] for rounds in before.values() for turn in rounds), default=-1)
    out = {name: list(rounds) for name, rounds in before.items()}
    for name, rounds in turns.items():
        out.setdefault(name, []).extend(turn | {"round": turn["round"] + first} for turn in rounds)
    return out


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, prints, keeps."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.macro.gateway", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="contenders whose name contains a word")
    parser.add_argument("--phases", nargs="+", default=PHASES, choices=PHASES, metavar="PHASE", help=", ".join(PHASES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--venv", nargs="+", type=Path, default=[], help="virtual environments that hold peers")
    parser.add_argument(
        "--hook", metavar="PROGRAM", help="called with begin and end around what is timed, to still others"
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="keeps the figures")
    parser.add_argument("--add", action="store_true", help="adds the rounds to those in OUT")
    options = parser.parse_args(argv)
    gateways = by_name(options.only)
    if not gateways:
        parser.error(f"no contender's name contains any of {options.only}")
    where = machine.describe()
    try:
        turns, absent = measure(
            gateways,
            rounds=options.rounds,
            phases=options.phases,
            venvs=[venv.resolve() for venv in options.venv],
            hook=options.hook,
            say=lambda line: print(line, flush=True),
        )
    except native.Unavailable as missing:
        parser.error(f"the load generator cannot be built: {missing}")
    document: dict[str, Any] = {"runs": []}
    if options.add and options.json is not None and options.json.exists():
        document = json.loads(options.json.read_text())
        turns = joined(document, turns)
    show(turns)
    promises = targets(turns, by_name([]))
    print_targets(promises)
    for name, missing in absent.items():
        print(f"absent: {name}: {missing}")
    if options.json is not None:
        document["runs"].append({"machine": where, "rounds": options.rounds})
        document |= {
            "command": "python -m bench.macro.gateway",
            "summary": summary(turns),
            "promises": [dataclasses.asdict(target) | {"holds": target.holds} for target in promises],
            "absent": {name: why for name, why in (document.get("absent", {}) | absent).items() if name not in turns},
            "turns": turns,
        }
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
