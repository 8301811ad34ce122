"""Which of a file's columns means what, recognised by their names."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Sequence

from zeta.errors import TraceError

__all__ = ["Form", "recognise"]


@dataclasses.dataclass(frozen=True, slots=True)
class Form:
    """A way of writing traces.

    Attributes
    ----------
    name : str
        What the summary calls it.
    arrival : str
        The column with the arrival.
    unit_ns : int or None
        Nanoseconds in one unit of that column; None where it holds dates, which then count from the first row.
    prompt, output : str
        The columns with the two token counts.
    optional : tuple of (str, str)
        Field of `TraceChunk` and the column that holds it.
    model_aliases : tuple of (str, str)
        Names of models in the file and what they are here.
    """

    name: str
    arrival: str
    unit_ns: int | None
    prompt: str
    output: str
    optional: tuple[tuple[str, str], ...] = ()
    model_aliases: tuple[tuple[str, str], ...] = ()


_OPTIONAL = ("model", "client", "complexity", "deadline_ms", "end_deadline_ms", "prefix_blocks")
_CANONICAL = tuple(
    Form("canonical", arrival, unit_ns, "prompt_tokens", "output_tokens", tuple((name, name) for name in _OPTIONAL))
    for arrival, unit_ns in (("arrival_us", 1_000), ("arrival_ms", 1_000_000), ("arrival_s", 1_000_000_000))
)
_RAW = (
    Form("azure", "TIMESTAMP", None, "ContextTokens", "GeneratedTokens"),
    # BurstGPT logs two services: ChatGPT (GPT-3.5) and GPT-4. A failed request has 0 response tokens.
    Form(
        "burstgpt",
        "Timestamp",
        1_000_000_000,
        "Request tokens",
        "Response tokens",
        (("model", "Model"), ("client", "Session ID")),
        (("ChatGPT", "small"), ("GPT-4", "large")),
    ),
    Form("mooncake", "timestamp", 1_000_000, "input_length", "output_length", (("prefix_blocks", "hash_ids"),)),
)


def recognise(columns: Sequence[str]) -> Form:
    """The form whose columns are all present, with the optional columns that are.

    Raises
    ------
    TraceError
        If no form fits, or the arrival is given in two units.
    """
    present = set(columns)
    if {"rate_rps", "t_s"} <= present:
        raise TraceError(
            "this is a rate series (t_s, rate_rps), which holds no single requests; replay needs a request trace"
        )
    fits = [form for form in (*_CANONICAL, *_RAW) if {form.arrival, form.prompt, form.output} <= present]
    if len(fits) > 1:
        raise TraceError(f"the arrival is given twice, as {' and '.join(form.arrival for form in fits)}; keep one")
    if not fits:
        raise TraceError(_unknown(columns))
    return dataclasses.replace(fits[0], optional=tuple(pair for pair in fits[0].optional if pair[1] in present))


def _unknown(columns: Sequence[str]) -> str:
    needed = ("arrival_us", "arrival_ms", "arrival_s", "prompt_tokens", "output_tokens")
    near = [(name, match[0]) for name in columns if (match := difflib.get_close_matches(name, needed, n=1))]
    hint = "".join(f"; {name!r} looks like {match!r}" for name, match in near if name != match)
    given = ", ".join(columns) if len(columns) <= 12 else f"{', '.join(columns[:12])}, ..."
    return (
        f"the columns ({given}) are no request trace; expected arrival_us | arrival_ms | arrival_s, prompt_tokens and "
        f"output_tokens, or Azure's, BurstGPT's or Mooncake's raw columns{hint}"
    )
