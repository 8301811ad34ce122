"""The package's step times: joined, composed and summarised without losing what was measured."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import pytest

from zeta import engine_tables
from zeta.errors import ConfigError

DATA = Path(engine_tables.__file__).resolve().parent.parent / "artefacts" / "engines"
KIND = "h200-sxm-141gb"
FLEET = [("qwen2.5-7b", 1), ("llama-3.1-8b", 1), ("qwen2.5-14b", 1)]


def measured_rows() -> list[dict[str, str]]:
    with gzip.open(DATA / "step_times_qwen_llama_bf16.csv.gz", "rt", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_measured_step_is_met_within_three_per_cent() -> None:
    # Not exactly: decode batch 256 and prefill 256 measure one matrix product twice, and the table keeps the mean.
    worst = 0.0
    for row in measured_rows():
        table = engine_tables.step_table(row["hw"], row["model"], int(row["tp"]))
        tokens, batch = int(row["tokens"]), int(row["batch"])
        shape = (tokens, 0, 0, 0) if row["phase"] == "prefill" else (0, 0, batch, batch * tokens)
        worst = max(worst, abs(table.step_time_ns(*shape) * 1e-6 / float(row["step_ms"]) - 1.0))
    assert worst < 0.03


def test_pieces_of_a_prompt_cost_its_attention_once() -> None:
    table = engine_tables.step_table(KIND, "qwen2.5-14b")
    whole = table.step_time_ns(8192, 0, 0, 0)
    pieces = sum(table.step_time_ns(2048, before, 0, 0) for before in range(0, 8192, 2048))
    assert whole < pieces < 1.1 * whole  # each piece adds its launches and its overhead


@pytest.mark.parametrize(("model", "tp"), FLEET)
def test_a_step_never_gets_shorter_by_a_tenth_when_it_gets_more_to_do(model: str, tp: int) -> None:
    table = engine_tables.step_table(KIND, model, tp)
    for batch in (0, 1, 16, 100, 256):
        for prefill in (0, 17, 300, 2048, 8192):
            now = table.step_time_ns(prefill, 0, batch, batch * 700)
            assert table.step_time_ns(prefill + 16, 0, batch, batch * 700) > 0.9 * now
            assert table.step_time_ns(prefill, 0, batch + 8, (batch + 8) * 700) > 0.9 * now
            assert table.step_time_ns(prefill, 4096, batch, batch * 1400) >= now


def test_kv_of_one_model_alone_is_what_the_memory_table_says() -> None:
    with (DATA / "models_memory.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["kv_capacity_tokens"] == "0":
                continue  # does not fit, so it has no step times
            (tokens,) = engine_tables.kv_tokens_on_device(row["hw"], [(row["model"], int(row["tp"]))])
            # The table's own weights were rounded to 0.1 GB after it was computed.
            slack = 0.05e9 * int(row["tp"]) / int(row["kv_bytes_per_token"]) + 1
            assert abs(tokens - int(row["kv_capacity_tokens"])) <= slack


def test_models_that_share_a_device_split_its_kv_bytes_equally() -> None:
    tokens = engine_tables.kv_tokens_on_device(KIND, FLEET)
    kv_bytes = [
        count * engine_tables.engine_memory(KIND, *engine).kv_bytes_per_token
        for count, engine in zip(tokens, FLEET, strict=True)
    ]
    assert max(kv_bytes) - min(kv_bytes) < 200_000  # one token
    left = 0.9 * 141e9 - 3 * 3.5e9 - sum(engine_tables.engine_memory(KIND, *engine).weights_bytes for engine in FLEET)
    assert sum(kv_bytes) == pytest.approx(left, rel=1e-4)


@pytest.mark.parametrize(("model", "tp"), FLEET)
def test_the_service_model_predicts_prefills_and_steps_within_twelve_per_cent(model: str, tp: int) -> None:
    table = engine_tables.step_table(KIND, model, tp)
    service = engine_tables.service_model(KIND, model, tp)
    for prompt in (64, 128, 300, 700, 1155, 2048, 4096, 8000):
        predicted = service.prefill_base_s + prompt * (
            service.prefill_per_token_s + prompt * service.prefill_per_token2_s
        )
        assert predicted * 1e9 == pytest.approx(table.step_time_ns(prompt, 0, 0, 0), rel=0.12)
    for batch in (1, 4, 16, 64, 128, 256):
        for context in (256, 1024, 4096):
            predicted = service.decode_base_s + batch * (
                service.decode_per_sequence_s + context * service.decode_per_context_token_s
            )
            assert predicted * 1e9 == pytest.approx(table.step_time_ns(0, 0, batch, batch * context), rel=0.12)


def test_the_same_engine_shares_one_table() -> None:
    assert engine_tables.step_table(KIND, "qwen2.5-7b") is engine_tables.step_table(KIND, "qwen2.5-7b")


def test_an_unknown_device_or_model_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="h200-sxm-141gb"):
        engine_tables.step_table("b300", "qwen2.5-7b")
    with pytest.raises(ConfigError, match=r"llama-3\.1-8b"):
        engine_tables.step_table(KIND, "gpt-2")
