"""The three kinds of file: each yields its column names, then blocks of raw columns with their line numbers."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from zeta.errors import MissingExtraError, TraceError

__all__ = ["Block", "Source", "open_source"]


class Block(NamedTuple):
    """Some rows of a file as they stand there.

    `lines` are 1-based (rows, in parquet). `ragged` are the rows that have the wrong number of cells or are no JSON
    object, with the reason; they are not in `columns` and not in `lines`.
    """

    columns: dict[str, Sequence[Any]]
    lines: Sequence[int]
    ragged: list[tuple[int, str]]


class Source(NamedTuple):
    """An open file: its column names and its blocks, which can be walked once."""

    columns: list[str]
    blocks: Iterator[Block]


def open_source(path: Path, block_rows: int) -> Source:
    """Opens `path` by its ending.

    Raises
    ------
    TraceError
        If the ending is unknown or the file cannot be read.
    MissingExtraError
        If it is parquet and pyarrow is not installed.
    """
    name = path.name.lower()
    plain = name.removesuffix(".gz")
    if name.endswith(".parquet"):
        return _parquet(path, block_rows)
    if plain.endswith((".csv", ".jsonl")):
        lines = _text(path, is_gzip=name.endswith(".gz"))
        return _csv(lines, block_rows) if plain.endswith(".csv") else _jsonl(lines, block_rows)
    raise TraceError(f"{path} is of no known kind; expected .csv, .csv.gz, .jsonl, .jsonl.gz or .parquet")


def _text(path: Path, *, is_gzip: bool) -> Iterator[str]:
    """The lines of `path`, with what can go wrong below told as a `TraceError`."""
    try:
        stored: Any = gzip.GzipFile(path) if is_gzip else path.open("rb")
        with io.TextIOWrapper(stored, encoding="utf-8-sig", newline="") as text:
            yield from text
    except EOFError:
        raise TraceError(f"{path} is cut short: its gzip stream has no end") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise TraceError(f"{path} is no sound gzip file: {error}") from None
    except UnicodeDecodeError as error:
        raise TraceError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from None
    except OSError as error:
        raise TraceError(f"cannot read {path}: {error.strerror or error}") from None


def _csv(lines: Iterator[str], block_rows: int) -> Source:
    reader = csv.reader(lines)

    def next_rows(count: int) -> list[list[str]]:
        try:
            return list(itertools.islice(reader, count))
        except csv.Error as error:
            raise TraceError(f"line {reader.line_num} is no csv: {error}", line=reader.line_num) from None

    names = [name.strip() for row in next_rows(1) for name in row]

    def blocks() -> Iterator[Block]:
        first = 2
        while rows := next_rows(block_rows):
            yield _csv_block(names, rows, first)
            first += len(rows)

    return Source(names, blocks())


def _csv_block(names: list[str], rows: list[list[str]], first: int) -> Block:
    try:
        return Block(dict(zip(names, zip(*rows, strict=True), strict=True)), range(first, first + len(rows)), [])
    except ValueError:
        numbered = [(line, row) for line, row in enumerate(rows, first) if row]
    whole = [(line, row) for line, row in numbered if len(row) == len(names)]
    ragged = [
        (line, f"{len(row)} cells; the header has {len(names)}") for line, row in numbered if len(row) != len(names)
    ]
    cells = zip(*(row for _, row in whole), strict=True) if whole else [()] * len(names)
    return Block(dict(zip(names, cells, strict=True)), [line for line, _ in whole], ragged)


def _jsonl(lines: Iterator[str], block_rows: int) -> Source:
    numbered = ((at, line) for at, line in enumerate(lines, 1) if line.strip())
    head = next(numbered, None)
    if head is None:
        return Source([], iter(()))
    try:
        first = json.loads(head[1])
    except json.JSONDecodeError:
        first = None
    if not isinstance(first, dict):
        raise TraceError(f"line {head[0]} is no JSON object; expected one object per line", line=head[0])
    names = list(first)

    def blocks() -> Iterator[Block]:
        rest = itertools.chain([head], numbered)
        while part := list(itertools.islice(rest, block_rows)):
            yield _jsonl_block(names, part)

    return Source(names, blocks())


def _jsonl_block(names: list[str], part: list[tuple[int, str]]) -> Block:
    at: list[int] = []
    rows: list[dict[str, Any]] = []
    ragged: list[tuple[int, str]] = []
    for line, text in part:
        try:
            value = json.loads(text)
        except json.JSONDecodeError as error:
            ragged.append((line, f"no JSON: {error.msg}"))
            continue
        if isinstance(value, dict):
            at.append(line)
            rows.append(value)
        else:
            ragged.append((line, "no JSON object"))
    return Block({name: [row.get(name) for row in rows] for name in names}, at, ragged)


def _parquet(path: Path, block_rows: int) -> Source:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingExtraError("reading parquet", ["pyarrow"], "cli") from None
    try:
        file = pyarrow.parquet.ParquetFile(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise TraceError(f"cannot read {path}: {error}") from None
    names = list(file.schema_arrow.names)

    def blocks() -> Iterator[Block]:
        first = 1
        try:
            for batch in file.iter_batches(batch_size=block_rows):
                columns = {name: batch.column(name).to_pylist() for name in names}
                yield Block(columns, range(first, first + batch.num_rows), [])
                first += batch.num_rows
        except (OSError, pyarrow.ArrowException) as error:
            raise TraceError(f"{path} breaks off after row {first - 1}: {error}") from None

    return Source(names, blocks())
