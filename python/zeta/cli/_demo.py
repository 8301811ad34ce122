"""``zeta demo``: the scheduler on an hour of a real trace, simulated; then the gateway before real engines, live."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import importlib.util
import random
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from zeta.cli._replay import replay_demo
from zeta.cli._serve import PACKAGES
from zeta.cli._shared import print_table, shown_progress
from zeta.config import Scheduler
from zeta.sim.spec import Progress
from zeta.traces import Trace

if TYPE_CHECKING:
    import aiohttp

    from zeta.cli._shared import Commands
    from zeta.gateway import Gateway

__all__ = ["add_to"]

_SECONDS: Final = 60.0
_BEGINS_S: Final = 1200.0
"""In the trace's hour: twenty minutes in, an ordinary time."""
_BURST: Final = (20.0, 30.0)
_BURST_FACTOR: Final = 4.0
_UTILISATION: Final = 0.6
_CORES: Final = 1.6
"""Of two: the rest is for the gateway and for whoever asks."""
_TTFT_SLO_S: Final = (1.0, 2.0, 3.0)
_TOKEN_SLO_S: Final = 0.1
_PATIENCE_S: Final = 15.0
"""After the last arrival; what is not answered by then is a miss."""
_SETTINGS: Final = {
    "even split, first come first served": Scheduler(policy="even", order="fifo"),
    "zeta": Scheduler(),
}


@dataclasses.dataclass(frozen=True, slots=True)
class _Request:
    """One request of the window, made as much smaller as the engines are."""

    at_s: float
    model: str
    prompt: str
    output_tokens: int
    ttft_slo_s: float


@dataclasses.dataclass(slots=True)
class _Seen:
    """What its client saw."""

    request: _Request
    ttft_s: float | None = None
    took_s: float | None = None
    error: str | None = None

    @property
    def met_slo(self) -> bool:
        """In time with the first token and with the last, as replay judges it."""
        if self.ttft_s is None or self.took_s is None or self.error is not None:
            return False
        slo_s = self.request.ttft_slo_s
        return self.ttft_s <= slo_s and self.took_s <= slo_s + _TOKEN_SLO_S * self.request.output_tokens


def add_to(commands: Commands) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "demo",
        help="an hour of a real trace, simulated, then a minute of it live",
        description="Replays an hour of a real chat service through the scheduler, on simulated engines; then plays a "
        "minute of it over HTTP against the gateway and three real, tiny language models on this machine's CPU.",
    )
    parser.add_argument("--only", choices=("replay", "live"), help="one half of it")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    code = 0
    if args.only != "live":
        code = replay_demo()
    if args.only != "replay":
        missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
        if missing:
            print(f"\nThe live half needs {', '.join(missing)}: pip install 'zeta-router[serve]'")
        else:
            code = max(code, _live())
    return code


def _live() -> int:
    """Plays the window twice and compares."""
    import uvloop

    from zeta.gateway import demo_engines

    print("\nLive: three tiny language models on this CPU, each in a process, and the gateway before them")
    with demo_engines() as engines:
        plan = uvloop.run(_plan(engines))
        hard = sum(request.model == plan[-1].model for request in plan)
        print(
            f"{len(plan)} requests in {_SECONDS:.0f} s, {hard} of them for the largest; from {_BURST[0]:.0f} to "
            f"{_BURST[1]:.0f} s {_BURST_FACTOR:.0f} times as many of those"
        )
        seen: dict[str, list[_Seen]] = {}
        with shown_progress() as progress:
            for number, (name, scheduler) in enumerate(_SETTINGS.items()):
                part = _part_of(progress, number, len(_SETTINGS), name)
                seen[name] = uvloop.run(_play_through_gateway(engines, scheduler, plan, part))
    _compare(seen)
    print("`make serve` keeps the gateway and its engines running: dashboard at http://127.0.0.1:8080/ui")
    return 0 if all(any(one.met_slo for one in each) for each in seen.values()) else 1


def _part_of(progress: Progress, number: int, count: int, name: str) -> Progress:
    def report(done: float, label: str) -> None:
        progress((number + done) / count, f"{name}: {label}")

    return report


# --- what is asked


async def _plan(engines: dict[str, str]) -> list[_Request]:
    """A window of the trace, as long as these engines can serve in a minute, and the burst."""
    import aiohttp

    async with aiohttp.ClientSession() as session:
        # Seconds of the CPU for one token, each engine alone.
        token_s = [await _token_s(session, url, name) for name, url in engines.items()]
    names = list(engines)
    trace = Trace.embedded().read()
    arrival_s = np.asarray(trace.arrival_ns) * 1e-9
    at = np.flatnonzero(arrival_s >= _BEGINS_S)
    prompt = np.clip(np.asarray(trace.prompt_tokens)[at] // 8, 8, 200)
    output = np.clip(np.asarray(trace.output_tokens)[at] // 2, 16, 200)
    size = prompt + 4 * output
    rank = np.argsort(np.argsort(size, kind="stable"), kind="stable")
    model = rank * len(names) // len(at)
    # A prompt's token is read some four times as fast as one is written.
    work_s = (output + prompt / 4) * np.array(token_s)[model]
    count = int(np.searchsorted(np.cumsum(work_s), _UTILISATION * _CORES * _SECONDS))
    span_s = float(arrival_s[at[count]] - _BEGINS_S)
    when_s = (arrival_s[at[:count]] - _BEGINS_S) / span_s * _SECONDS
    dice = random.Random(7)
    plan = [
        _Request(
            float(when_s[i]), names[model[i]], _prompt(dice, int(prompt[i])), int(output[i]), _TTFT_SLO_S[model[i]]
        )
        for i in range(count)
    ]
    hardest = [request for request in plan if request.model == names[-1]]
    extra = int(len(hardest) / _SECONDS * (_BURST[1] - _BURST[0]) * (_BURST_FACTOR - 1.0))
    for _ in range(extra):
        plan.append(dataclasses.replace(dice.choice(hardest), at_s=dice.uniform(*_BURST)))
    return sorted(plan, key=lambda request: request.at_s)


async def _token_s(session: aiohttp.ClientSession, url: str, name: str) -> float:
    """What a token costs while as many answers are written at once as the gateway allows."""
    from zeta.gateway import DEMO_IN_FLIGHT

    together, tokens = DEMO_IN_FLIGHT, 64
    asked = [_Request(0.0, name, "Q: What is the opposite of hot?\nA:", tokens, 1.0) for _ in range(together)]
    await _ask(session, url, _Seen(asked[0]))  # the first one warms up
    began = time.perf_counter()
    await asyncio.gather(*(_ask(session, url, _Seen(request)) for request in asked))
    return (time.perf_counter() - began) / (together * tokens)


def _prompt(dice: random.Random, tokens: int) -> str:
    from zeta.engines import questions

    # Questions with their answers, until it is long enough, then one to answer; a token has about three letters.
    kinds = list(questions.KINDS)
    text = ""
    while len(text) < 3 * tokens:
        text += " ".join(questions.question(dice, dice.choice(kinds))) + "\n"
    return text + questions.question(dice, dice.choice(kinds))[0]


# --- how it is played


async def _play_through_gateway(
    engines: dict[str, str], scheduler: Scheduler, plan: Sequence[_Request], progress: Progress
) -> list[_Seen]:
    from zeta.gateway import Gateway, demo_config

    gateway = Gateway(demo_config(engines, port=0, scheduler=scheduler))
    port = await gateway.start()
    try:
        return await _play(f"http://127.0.0.1:{port}", plan, gateway, progress)
    finally:
        await gateway.stop(1.0)


async def _play(base: str, plan: Sequence[_Request], gateway: Gateway, progress: Progress) -> list[_Seen]:
    """Sends each request at its time, whatever became of the ones before it."""
    import aiohttp

    seen = [_Seen(request) for request in plan]
    began = time.monotonic()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        tasks = []
        for one in seen:
            delay_s = one.request.at_s - (time.monotonic() - began)
            if delay_s > 0:
                await asyncio.sleep(delay_s)
            tasks.append(asyncio.create_task(_ask(session, base, one)))
            waiting = {name: row["waiting"] for name, row in gateway.router.stats()["models"].items()}
            label = " ".join(f"{name} {count}" for name, count in waiting.items())
            progress(one.request.at_s / _SECONDS, f"waiting {label}")
        await asyncio.wait(tasks, timeout=_PATIENCE_S)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return seen


async def _ask(session: aiohttp.ClientSession, base: str, one: _Seen) -> None:
    body = {
        "model": one.request.model,
        "messages": [{"role": "user", "content": one.request.prompt}],
        "max_tokens": one.request.output_tokens,
        "ignore_eos": True,
        "stream": True,
    }
    fields = {"X-Zeta-Deadline-Ms": f"{one.request.ttft_slo_s * 1e3:.0f}"}
    began = time.perf_counter()
    async with session.post(f"{base}/v1/chat/completions", json=body, headers=fields) as answer:
        if answer.status != 200:
            one.error = f"HTTP {answer.status}"
            return
        async for data in answer.content.iter_any():
            if one.ttft_s is None:
                one.ttft_s = time.perf_counter() - began
            if b'"error"' in data:
                one.error = "an error in the stream"
    one.took_s = time.perf_counter() - began


# --- what came of it


def _compare(seen: dict[str, list[_Seen]]) -> None:
    rows = []
    for name, each in seen.items():
        models = list(dict.fromkeys(one.request.model for one in sorted(each, key=lambda one: one.request.ttft_slo_s)))
        for model in (*models, "all"):
            of_model = [one for one in each if model in (one.request.model, "all")]
            ttft_s = np.array([one.ttft_s for one in of_model if one.ttft_s is not None] or [np.nan])
            met = sum(one.met_slo for one in of_model)
            p50, p99 = np.percentile(ttft_s, [50, 99])
            row = (model, f"{len(of_model)}", f"{met / len(of_model):.1%}", f"{p50:.2f}", f"{p99:.2f}")
            rows.append((name, *row))
    print_table(("", "model", "requests", "SLO met", "TTFT p50 s", "p99 s"), rows)
