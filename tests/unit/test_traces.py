"""Claims about reading traces: forms, order, bad rows, memory of what was left out."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from zeta.errors import MissingExtraError, TraceError
from zeta.traces import Trace, TraceChunk
from zeta.traces import _trace as trace_module


def written(folder: Path, name: str, text: str) -> Trace:
    path = folder / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return Trace(path)


def read(folder: Path, name: str, text: str) -> TraceChunk:
    return written(folder, name, text).read()


def test_the_embedded_trace_is_an_hour_of_19366_requests() -> None:
    trace = Trace.embedded()
    chunk = trace.read()
    assert len(chunk) == 19_366
    assert (trace.summary.bad_row_count, trace.summary.moved_rows, trace.summary.form) == (0, 0, "canonical")
    assert trace.summary.duration_s == pytest.approx(3501.721937)
    assert (chunk.prompt_tokens[:2].tolist(), chunk.output_tokens[:2].tolist()) == ([374, 396], [44, 109])
    assert chunk.arrival_ns[1] == 4_314_579_000
    assert chunk.model is chunk.client is chunk.complexity is chunk.prefix_blocks is None


def test_the_embedded_trace_comes_with_its_attribution() -> None:
    said = (Trace.embedded().path.parent / "ATTRIBUTION").read_text()
    for words in ("CC-BY 4.0", "AzurePublicDataset", "Splitwise", "ISCA 2024"):
        assert words in said


@pytest.mark.parametrize(
    ("column", "value", "arrival_ns"),
    [
        ("arrival_us", "1500", 1_500_000),
        ("arrival_ms", "1500", 1_500_000_000),
        ("arrival_ms", "0.25", 250_000),
        ("arrival_s", "1500", 1_500_000_000_000),
        ("arrival_s", "864000.123456789", 864_000_123_456_789),
        ("arrival_s", "1e3", 1_000_000_000_000),
    ],
)
def test_arrivals_are_nanoseconds_whatever_their_unit(tmp_path: Path, column: str, value: str, arrival_ns: int) -> None:
    chunk = read(tmp_path, "t.csv", f"{column},prompt_tokens,output_tokens\n{value},3,4\n")
    assert chunk.arrival_ns.tolist() == [arrival_ns]


ROWS = [
    {"arrival_ms": 5, "model": "small", "client": "7", "prompt_tokens": 10, "output_tokens": 2, "complexity": 0.25},
    {"arrival_ms": 9, "model": "large", "client": "", "prompt_tokens": 30, "output_tokens": 4, "complexity": None},
    {"arrival_ms": 9, "model": "small", "client": "3", "prompt_tokens": 20, "output_tokens": 6, "complexity": 1.0},
]
EXTRA = [
    {"deadline_ms": 500.5, "end_deadline_ms": None, "prefix_blocks": "1 2 3"},
    {"deadline_ms": None, "end_deadline_ms": 9000, "prefix_blocks": ""},
    {"deadline_ms": None, "end_deadline_ms": None, "prefix_blocks": "1 9"},
]


def same_trace_as(kind: str, folder: Path) -> Trace:
    rows = [{**row, **extra} for row, extra in zip(ROWS, EXTRA, strict=True)]
    if kind.startswith("csv"):
        cells = [",".join("" if value is None else str(value) for value in row.values()) for row in rows]
        return written(folder, f"t.{kind}", "\n".join([",".join(rows[0]), *cells, ""]))
    if kind.startswith("jsonl"):
        listed = [{**row, "prefix_blocks": [int(block) for block in str(row["prefix_blocks"]).split()]} for row in rows]
        return written(folder, f"t.{kind}", "\n".join(json.dumps(row) for row in listed))
    pyarrow = pytest.importorskip("pyarrow", reason="parquet comes with the extra 'cli'")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "t.parquet")
    return Trace(folder / "t.parquet")


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "jsonl", "jsonl.gz", "parquet"])
def test_every_kind_of_file_gives_the_same_columns(tmp_path: Path, kind: str) -> None:
    chunk = same_trace_as(kind, tmp_path).read()
    assert chunk.arrival_ns.tolist() == [5_000_000, 9_000_000, 9_000_000]
    assert chunk.model is not None
    assert chunk.client is not None
    assert [chunk.model_names[code] for code in chunk.model] == ["small", "large", "small"]
    assert chunk.client.tolist() == [0, -1, 1]
    assert chunk.client_names == ("7", "3")
    np.testing.assert_array_equal(chunk.complexity, [0.25, np.nan, 1.0])
    np.testing.assert_array_equal(chunk.deadline_ms, [500.5, np.nan, np.nan])
    np.testing.assert_array_equal(chunk.end_deadline_ms, [np.nan, 9000, np.nan])
    assert chunk.prefix_offsets is not None
    assert chunk.prefix_blocks is not None
    assert (chunk.prefix_offsets.tolist(), chunk.prefix_blocks.tolist()) == ([0, 3, 3, 5], [1, 2, 3, 1, 9])


def test_azure_s_raw_form_counts_from_its_first_row(tmp_path: Path) -> None:
    text = (
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:15:46.6805900,374,44\n"
        "2023-11-16 18:15:50.9951690,396,109\n"
    )
    trace = written(tmp_path, "AzureLLMInferenceTrace_conv.csv", text)
    assert trace.read().arrival_ns.tolist() == [0, 4_314_579_000]
    assert trace.summary.form == "azure"


def test_azure_s_2024_form_has_a_time_zone(tmp_path: Path) -> None:
    text = (
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2024-05-10 00:00:00.009930+00:00,2162,5\n"
        "2024-05-10 00:00:00.017335+00:00,2399,6\n"
    )
    assert read(tmp_path, "t.csv", text).arrival_ns.tolist() == [0, 7_405_000]


def test_burstgpt_s_raw_form_names_its_models_and_reports_failures(tmp_path: Path) -> None:
    text = (
        "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
        "5,ChatGPT,472,18,490,Conversation log\n"
        "45,ChatGPT,1087,0,1087,Conversation log\n"
        "118,GPT-4,417,276,693,Conversation log\n"
    )
    trace = written(tmp_path, "BurstGPT_1.csv", text)
    chunk = trace.read()
    assert chunk.arrival_ns.tolist() == [5_000_000_000, 118_000_000_000]
    assert chunk.model_names == ("small", "large")
    assert [(bad.line, bad.reason) for bad in trace.summary.bad_rows] == [
        (3, "Response tokens = 0; expected 1 to 2147483647 tokens")
    ]


def test_mooncake_s_raw_form_keeps_its_block_ids(tmp_path: Path) -> None:
    text = (
        '{"timestamp": 0, "input_length": 6758, "output_length": 500, "hash_ids": [0, 1, 2]}\n'
        '{"timestamp": 3000, "input_length": 7322, "output_length": 490, "hash_ids": [0, 14]}\n'
    )
    trace = written(tmp_path, "conversation_trace.jsonl", text)
    chunk = trace.read()
    assert trace.summary.form == "mooncake"
    assert chunk.arrival_ns.tolist() == [0, 3_000_000_000]
    assert chunk.prefix_blocks is not None
    assert chunk.prefix_blocks.tolist() == [0, 1, 2, 0, 14]


BAD = [
    ("x,3,4", "arrival_ms = 'x'; expected a number"),
    ("nan,3,4", "arrival_ms = 'nan'; expected a number"),
    ("-5,3,4", "arrival_ms = -5; expected a time of 0 or later"),
    ("1e99,3,4", "arrival_ms = 1e99; expected a time of 0 or later"),
    ("7,3.5,4", "prompt_tokens = '3.5'; expected a whole number of tokens"),
    ("7,,4", "prompt_tokens = ''; expected a whole number of tokens"),
    ("7,3,0", "output_tokens = 0; expected 1 to 2147483647 tokens"),
    ("7,-3,4", "prompt_tokens = -3; expected 1 to 2147483647 tokens"),
    ("7,99999999999999999999,4", "prompt_tokens = '99999999999999999999'; expected a whole number of tokens"),
    ("7,3", "2 cells; the header has 3"),
    ("7,3,4,5", "4 cells; the header has 3"),
]


@pytest.mark.parametrize(("line", "reason"), BAD)
def test_a_bad_row_is_reported_with_its_line_and_the_others_stay(tmp_path: Path, line: str, reason: str) -> None:
    trace = written(tmp_path, "t.csv", f"arrival_ms,prompt_tokens,output_tokens\n6,1,1\n{line}\n8,2,2\n")
    chunk = trace.read()
    assert chunk.prompt_tokens.tolist() == [1, 2]
    assert chunk.row.tolist() == [0, 2]
    assert [(bad.line, bad.reason) for bad in trace.summary.bad_rows] == [(3, reason)]


def test_used_and_left_out_rows_add_up_however_they_are_mixed(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    lines, bad_lines = [], []
    for index in range(40_000):
        if rng.random() < 0.02:
            lines.append(BAD[int(rng.integers(len(BAD)))][0])
            bad_lines.append(index + 2)
        else:
            lines.append(f"{index},3,4")
    trace = written(tmp_path, "t.csv", "arrival_ms,prompt_tokens,output_tokens\n" + "\n".join(lines))
    chunk = trace.read()
    assert trace.summary.bad_row_count == len(bad_lines)
    assert [bad.line for bad in trace.summary.bad_rows] == bad_lines[:1000]
    np.testing.assert_array_equal(chunk.row * 1_000_000, chunk.arrival_ns)


@pytest.mark.parametrize(
    ("optional", "value", "expected"),
    [
        ("complexity", "1.5", "0 to 1"),
        ("complexity", "hard", "a number or nothing"),
        ("deadline_ms", "0", "more than 0 ms"),
        ("end_deadline_ms", "inf", "more than 0 ms"),
        ("prefix_blocks", "a b", "block ids"),
    ],
)
def test_optional_columns_are_checked_too(tmp_path: Path, optional: str, value: str, expected: str) -> None:
    header = f"arrival_ms,prompt_tokens,output_tokens,{optional}"
    trace = written(tmp_path, "t.csv", f"{header}\n6,1,1,\n7,1,1,{value}\n")
    assert len(trace.read()) == 1
    (bad,) = trace.summary.bad_rows
    assert bad.line == 3
    assert bad.reason.startswith(f"{optional} = ")
    assert bad.reason.endswith(f"expected {expected}")


def test_a_bad_line_of_json_is_reported(tmp_path: Path) -> None:
    good = '{"arrival_ms": 1, "prompt_tokens": 2, "output_tokens": 3}'
    half = '{"arrival_ms": 1, "prompt_tokens": 2.5, "output_tokens": 3}'
    absent = '{"arrival_ms": 1, "prompt_tokens": 2}'
    trace = written(tmp_path, "t.jsonl", "\n".join([good, "{", "[1]", half, "", absent, good]))
    assert trace.read().row.tolist() == [0, 5]
    assert [bad.line for bad in trace.summary.bad_rows] == [2, 3, 4, 6]


def test_blank_lines_are_no_rows(tmp_path: Path) -> None:
    trace = written(tmp_path, "t.csv", "arrival_ms,prompt_tokens,output_tokens\n6,1,1\n\n7,2,0\n8,2,2\n")
    assert trace.read().row.tolist() == [0, 2]
    assert [bad.line for bad in trace.summary.bad_rows] == [4]


def test_rows_up_to_a_minute_late_are_put_back_into_order(tmp_path: Path) -> None:
    text = "arrival_s,prompt_tokens,output_tokens\n100,1,1\n160,2,1\n100,3,1\n159,4,1\n300,5,1\n"
    trace = written(tmp_path, "t.csv", text)
    assert trace.read().prompt_tokens.tolist() == [1, 3, 4, 2, 5]
    assert trace.summary.moved_rows == 2


def test_order_holds_across_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_module, "_BLOCK_ROWS", 64)
    rng = np.random.default_rng(7)
    arrival_ms = np.arange(5000) * 1000 + rng.integers(-25_000, 25_000, 5000) + 25_000
    lines = [f"{at},{index + 1},1,{index} {index}" for index, at in enumerate(arrival_ms.tolist())]
    text = "arrival_ms,prompt_tokens,output_tokens,prefix_blocks\n" + "\n".join(lines)
    trace = written(tmp_path, "t.csv", text)
    chunks = list(trace.chunks())
    assert len(chunks) > 50
    whole = TraceChunk.join(chunks)
    expected = np.argsort(arrival_ms, kind="stable")
    np.testing.assert_array_equal(whole.row, expected)
    np.testing.assert_array_equal(whole.arrival_ns, arrival_ms[expected] * 1_000_000)
    np.testing.assert_array_equal(whole.prompt_tokens, expected + 1)
    np.testing.assert_array_equal(whole.prefix_blocks, np.repeat(expected, 2))


def test_a_file_that_is_not_in_order_of_arrival_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_module, "_BLOCK_ROWS", 2)
    text = "arrival_s,prompt_tokens,output_tokens\n100,1,1\n900,2,1\n950,2,1\n200,3,1\n"
    with pytest.raises(TraceError, match=r"data row 4 arrives 750.000 s before a row above it.*sort the file"):
        written(tmp_path, "t.csv", text).read()


def test_whether_a_late_row_is_refused_does_not_depend_on_the_block_size(tmp_path: Path) -> None:
    text = "arrival_s,prompt_tokens,output_tokens\n100,1,1\n900,2,1\n950,2,1\n200,3,1\n"
    with pytest.raises(TraceError, match="sort the file"):
        written(tmp_path, "t.csv", text).read()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.csv", b"", "is empty"),
        ("t.csv", b"arrival_ms,prompt_tokens,output_tokens\n", "no row that can be used"),
        ("t.csv", b"arrival_ms,prompt_tokens,output_tokens\n1,2,0\n", "1 left out; line 2: output_tokens = 0"),
        ("t.csv", b"arrival_ms,promt_tokens,output_tokens\n1,2,3\n", "'promt_tokens' looks like 'prompt_tokens'"),
        ("t.csv", b"arrival_ms,arrival_s,prompt_tokens,output_tokens\n1,1,2,3\n", "given twice"),
        ("t.csv", b"workload,t_s,rate_rps\nm,0,1\n", "rate series"),
        ("t.csv", b"\xff\xfe\x00", "not UTF-8"),
        ("t.csv.gz", b"arrival_ms", "no sound gzip"),
        ("t.csv.gz", gzip.compress(b"arrival_ms,prompt_tokens,output_tokens\n1,2,3\n", mtime=0)[:-12], "cut short"),
        ("t.jsonl", b"[1]\n", "line 1 is no JSON object"),
        ("t.jsonl", b"nonsense\n", "line 1 is no JSON object"),
        ("t.parquet", b"PAR1", "cannot read"),
        ("t.txt", b"1", "no known kind"),
        ("t.csv", None, "cannot read .*No such file"),
    ],
)
def test_a_file_that_is_no_trace_is_a_trace_error(tmp_path: Path, name: str, content: bytes | None, said: str) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow", reason="parquet comes with the extra 'cli'")
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(TraceError, match=said):
        Trace(tmp_path / name).read()


def test_parquet_without_its_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"reading parquet needs pyarrow.*zeta-router\[cli\]"):
        Trace(tmp_path / "t.parquet").read()


def test_the_summary_exists_only_after_a_whole_pass() -> None:
    trace = Trace.embedded()
    next(trace.chunks())
    with pytest.raises(TraceError, match="not been read to its end"):
        _ = trace.summary


def test_taking_rows_takes_their_blocks_along(tmp_path: Path) -> None:
    chunk = same_trace_as("csv", tmp_path).read()
    backwards = chunk.take(np.array([2, 1, 0]))
    assert backwards.prefix_offsets is not None
    assert backwards.prefix_blocks is not None
    assert backwards.prefix_offsets.tolist() == [0, 2, 2, 5]
    assert backwards.prefix_blocks.tolist() == [1, 9, 1, 2, 3]
    assert backwards.arrival_ns.tolist() == [9_000_000, 9_000_000, 5_000_000]
