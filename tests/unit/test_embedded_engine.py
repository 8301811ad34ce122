"""The embedded engine and its models: files, tokens, batches, processes."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("httptools")
pytest.importorskip("msgspec")

from zeta.engines import EmbeddedEngine, Job, embedded
from zeta.engines._lm import ARTEFACTS, LanguageModel, manifest
from zeta.engines._tokens import END, Tokens
from zeta.errors import ModelLoadError, NotReadyError

NAMES = embedded.models()


class Kept(Job):
    """A job that keeps what it gets."""

    __slots__ = ("finish", "pieces")

    def __init__(self, prompt: str, max_tokens: int, **options: Any) -> None:
        super().__init__(prompt, max_tokens, **options)
        self.pieces: list[bytes] = []
        self.finish: str | None = None

    def produced(self, pieces: Sequence[bytes], finish: str | None) -> None:
        self.pieces += pieces
        self.finish = finish

    @property
    def text(self) -> str:
        return str(json.loads(b'"%b"' % b"".join(self.pieces)))


async def run(engine: EmbeddedEngine, *jobs: Kept) -> None:
    for job in jobs:
        assert engine.submit(job) is None
    while any(job.finish is None for job in jobs):
        await asyncio.sleep(0)


# --- files -----------------------------------------------------------------------------------------------------------


def test_all_models_together_stay_below_4_mb() -> None:
    assert len(NAMES) == 3
    assert sum(path.stat().st_size for path in ARTEFACTS.iterdir()) <= 4_000_000


def test_a_larger_model_is_better_at_held_out_texts_and_answers_more() -> None:
    rows = [manifest()["models"][name] for name in NAMES]
    assert [row["parameters"] for row in rows] == sorted(row["parameters"] for row in rows)
    bits = [row["held_out_bits_per_byte"]["own"] for row in rows]
    assert all(larger < 0.95 * smaller for smaller, larger in pairwise(bits))
    right = [sum(row["answers_right"].values()) / len(row["answers_right"]) for row in rows]
    assert all(larger > 1.3 * smaller for smaller, larger in pairwise(right))


@pytest.mark.parametrize("name", [NAMES[0], NAMES[-1]])
def test_the_stated_answers_are_those_of_the_file(name: str) -> None:
    from zeta.engines._judge import answers_right

    right, stated = answers_right(LanguageModel(name), each=25, seed=3), manifest()["models"][name]["answers_right"]
    assert right.keys() == stated.keys()
    assert sum(right.values()) / len(right) == pytest.approx(sum(stated.values()) / len(stated), abs=0.1)


def test_bits_per_byte_do_not_depend_on_which_texts_are_read_together() -> None:
    from zeta.engines._judge import bits_per_byte

    net, texts = LanguageModel("tiny"), ["The queue holds.", "A", "Time is an integer of nanoseconds."]
    alone = sum(bits_per_byte(net, [text]) * len(text) for text in texts)
    assert bits_per_byte(net, texts) == pytest.approx(alone / sum(map(len, texts)), rel=1e-6)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda at: (at / "tiny.onnx").write_bytes(b"x"), "not the file"),
        (lambda at: (at / "tiny.onnx").unlink(), "reinstall"),
        (lambda at: (at / "manifest.json").write_text("{"), "manifest.json"),
        (lambda at: (at / "manifest.json").write_text('{"format": 9}'), "format 9"),
    ],
)
def test_damaged_files_are_refused_with_what_to_do(tmp_path: Path, damage: Any, says: str) -> None:
    for name in ("manifest.json", "tiny.onnx"):
        shutil.copy(ARTEFACTS / name, tmp_path)
    assert LanguageModel("tiny", tmp_path).width > 0
    damage(tmp_path)
    with pytest.raises(ModelLoadError, match=says):
        LanguageModel("tiny", tmp_path)


def test_an_unknown_model_names_those_there_are() -> None:
    with pytest.raises(ModelLoadError, match=", ".join(NAMES)):
        LanguageModel("huge")


# --- tokens ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["", "The queue.", "ä\u2014\U0001f600 \n\n x", "a  b\t12345", "Q: What is 4 plus 5?\nA:"]
)
def test_tokens_give_their_text_back(text: str) -> None:
    tokens = Tokens(manifest()["merges"])
    assert tokens.decode(tokens.encode(text)) == text


def test_the_byte_zero_never_ends_a_prompt() -> None:
    assert END not in Tokens(manifest()["merges"]).encode("a\0b")


def test_merges_that_join_what_is_not_there_are_refused() -> None:
    with pytest.raises(ValueError, match="merge 0"):
        Tokens([(300, 301)])


# --- batches ---------------------------------------------------------------------------------------------------------


def test_reading_a_prompt_in_pieces_or_beside_others_changes_no_bit() -> None:
    net = LanguageModel("tiny")
    rows = [net.tokens.encode(text) for text in ("The queue holds what waits.", "A", "Time is an integer of")]
    logits, states, _ = net.read(rows, net.empty_states(3))
    for at, row in enumerate(rows):
        alone = net.empty_states(1)
        for token in row:
            one, alone, _ = net.step(np.array([token]), alone)
        assert np.array_equal(one[0], logits[at])
        assert np.array_equal(alone[:, 0], states[:, at])


@pytest.mark.asyncio
async def test_an_answer_does_not_depend_on_who_else_is_served() -> None:
    engine = EmbeddedEngine("tiny", max_batch=3)
    prompts = [f"Q: What is {n} plus {n + 3}?\nA:" for n in range(8)]
    alone = []
    for prompt in prompts:
        job = Kept(prompt, 30, temperature=0.0)
        await run(engine, job)
        alone.append(job.text)
    jobs = [Kept(prompt, 30, temperature=0.0) for prompt in prompts]
    await run(engine, *jobs)
    assert [job.text for job in jobs] == alone
    assert engine.gauges().running == engine.gauges().waiting == 0
    await engine.close()


@pytest.mark.asyncio
async def test_a_seed_makes_a_drawn_answer_come_again_and_another_changes_it() -> None:
    engine = EmbeddedEngine("tiny")
    jobs = [Kept("The", 40, temperature=1.0, seed=seed, ignores_end=True) for seed in (1, 1, 2)]
    await run(engine, *jobs)
    assert jobs[0].text == jobs[1].text != jobs[2].text


@pytest.mark.asyncio
async def test_the_models_end_of_text_ends_an_answer_unless_told_otherwise() -> None:
    engine = EmbeddedEngine(NAMES[-1])
    ends = Kept("Q: Which day comes after Monday?\nA:", 60, temperature=0.0)
    goes_on = Kept("Q: Which day comes after Monday?\nA:", 60, temperature=0.0, ignores_end=True)
    exact = Kept("Q: Which day comes after Monday?\nA:", 60, temperature=0.0, output_tokens=33)
    await run(engine, ends, goes_on, exact)
    assert (ends.finish, ends.text.strip()) == ("stop", "Tuesday comes after Monday.")
    assert (goes_on.finish, len(goes_on.pieces)) == ("length", 60)
    assert (exact.finish, len(exact.pieces)) == ("length", 33)


@pytest.mark.asyncio
async def test_leaving_at_any_moment_frees_the_place_once() -> None:
    engine = EmbeddedEngine("tiny", max_batch=2)
    dice = random.Random(1)
    for _ in range(30):
        jobs = [Kept("a prompt " * dice.randrange(1, 60), 400, ignores_end=True) for _ in range(5)]
        for job in jobs:
            engine.submit(job)
        for _ in range(dice.randrange(12)):
            await asyncio.sleep(0)
        for job in dice.sample(jobs, 5):
            engine.abort(job)
            engine.abort(job)
        gauges = engine.gauges()
        assert (gauges.running, gauges.waiting, gauges.kv_used) == (0, 0, 0.0)
    last = Kept("The", 3, ignores_end=True)
    await run(engine, last)
    assert len(last.pieces) == 3


# --- processes -------------------------------------------------------------------------------------------------------


def test_an_unknown_model_fails_the_start_with_its_reason_and_leaves_no_process() -> None:
    with pytest.raises(NotReadyError, match="there is no embedded model 'huge'"):
        embedded.start("huge")


def test_closing_ends_the_process_and_may_be_repeated() -> None:
    engine = embedded.start("tiny")
    assert engine.is_alive
    engine.close()
    engine.close()
    assert engine.process.returncode == 0


def test_an_engine_dies_with_the_process_that_started_it() -> None:
    code = (
        "import time; from zeta.engines import embedded; print(embedded.start('tiny').pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        descriptor = os.pidfd_open(pid)
        try:
            parent.send_signal(signal.SIGKILL)
            import select

            assert select.select([descriptor], [], [], 10.0)[0], "it still runs"
        finally:
            os.close(descriptor)


def test_sigterm_lets_it_end_with_0() -> None:
    engine = embedded.start("tiny")
    engine.process.terminate()
    assert engine.process.wait(10.0) == 0
    engine.close()
