"""How each engine says what the monitor wants to know, in its older and newer versions.

A field has several sources, newest first; the first that the page holds is taken. Versions overlap: some publish the
old and the new name side by side, so sources are never added up.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from zeta.monitor._engine_text import Labels, Series
from zeta.monitor.probe import REPLICA_FIELDS

__all__ = ["FORMS", "PageRows", "Row", "TextForm", "llama_props", "llama_slots", "ollama_models", "wanted_names"]

Row = dict[str, float | None]
Group = tuple[tuple[str, str], ...]

_NAMES: Final = tuple(field.name for field in REPLICA_FIELDS)

# Ranks of one engine that each tell of the same requests: the greatest counts. Other labels split them: they are added.
_SAME_REQUESTS: Final = frozenset({"tp_rank", "pp_rank", "moe_ep_rank", "pid"})


@dataclass(frozen=True, slots=True)
class Source:
    """One metric that fills a field."""

    metric: str
    how: str = "sum"
    """``sum`` over data-parallel engines and finish reasons; ``max`` where the fullest one decides."""
    labels: tuple[tuple[str, str], ...] = ()
    """Only series with these labels."""


@dataclass(frozen=True, slots=True)
class TextForm:
    """An engine that speaks Prometheus text at ``/metrics``."""

    engine: str
    prefix: str
    """What all its metrics begin with: its signature."""
    fields: Mapping[str, tuple[Source, ...]]
    derive: Callable[[Series, Row], None]
    needs: tuple[str, ...] = ()
    """Metrics that `derive` reads."""

    def read(self, series: Series, model: str | None) -> Row:
        """The row; fields without a source on this page are None."""
        if model is not None:
            series = {name: [one for one in each if _is_of(one[0], model)] for name, each in series.items()}
        row: Row = dict.fromkeys(_NAMES)
        for field, sources in self.fields.items():
            row[field] = next((value for source in sources if (value := _value(series, source)) is not None), None)
        self.derive(series, row)
        return row


class PageRows:
    """Rows from pages that all have the same series: which number goes into which field is settled once.

    Parameters
    ----------
    form : TextForm
    series : list of (str, mapping of str to str)
        Names and labels, in the order of the numbers to come.
    model : str or None
        Only this model's.
    """

    def __init__(self, form: TextForm, series: Sequence[tuple[str, Labels]], model: str | None) -> None:
        self._form, self._series, self._model = form, series, model
        self._single: list[tuple[str, int]] = []
        self._summed: list[tuple[str, list[int]]] = []
        self._other: list[tuple[str, str, list[list[int]]]] = []
        mine = [at for at, (_, labels) in enumerate(series) if model is None or _is_of(labels, model)]
        for field, sources in form.fields.items():
            for source in sources:
                groups: dict[Group, list[int]] = {}
                for at in mine:
                    name, labels = series[at]
                    if name == source.metric and (group := _group(labels, source)) is not None:
                        groups.setdefault(group, []).append(at)
                if groups:
                    self._settle(field, source.how, list(groups.values()))
                    break
        self._needed = [at for at in mine if series[at][0] in form.needs]

    def row(self, numbers: list[float]) -> Row:
        """The row, as `TextForm.read` gives it."""
        if not math.isfinite(sum(numbers)):  # a series without a number leaves the field to its next source
            found: Series = {}
            for (name, labels), value in zip(self._series, numbers, strict=True):
                if math.isfinite(value):
                    found.setdefault(name, []).append((labels, value))
            return self._form.read(found, self._model)
        row: Row = dict.fromkeys(_NAMES)
        for field, at in self._single:
            row[field] = numbers[at]
        for field, places in self._summed:
            row[field] = sum([numbers[at] for at in places])
        for field, how, groups in self._other:
            values = [max([numbers[at] for at in group]) for group in groups]
            row[field] = max(values) if how == "max" else sum(values)
        needed: Series = {}
        for at in self._needed:
            name, labels = self._series[at]
            needed.setdefault(name, []).append((labels, numbers[at]))
        self._form.derive(needed, row)
        return row

    def _settle(self, field: str, how: str, groups: list[list[int]]) -> None:
        if len(groups) == 1 and len(groups[0]) == 1:
            self._single.append((field, groups[0][0]))
        elif how == "sum" and all(len(group) == 1 for group in groups):
            self._summed.append((field, [group[0] for group in groups]))
        else:
            self._other.append((field, how, groups))


def wanted_names(form: TextForm) -> list[str]:
    """Every metric that the form may use."""
    return [source.metric for sources in form.fields.values() for source in sources] + list(form.needs)


def _is_of(labels: Labels, model: str) -> bool:
    return labels.get("model_name", model) == model


def _group(labels: Labels, source: Source) -> Group | None:
    """What tells requests apart; None for a series that the source does not mean."""
    if any(labels.get(name) != wanted for name, wanted in source.labels):
        return None
    return tuple(sorted(item for item in labels.items() if item[0] not in _SAME_REQUESTS))


def _value(series: Series, source: Source) -> float | None:
    groups: dict[Group, float] = {}
    for labels, value in series.get(source.metric, ()):
        group = _group(labels, source)
        if group is not None:
            groups[group] = max(value, groups.get(group, -math.inf))
    if not groups:
        return None
    return max(groups.values()) if source.how == "max" else sum(groups.values())


def _one(*metrics: str, how: str = "sum") -> tuple[Source, ...]:
    return tuple(Source(metric, how) for metric in metrics)


def _vllm_derived(series: Series, row: Row) -> None:
    tokens = [
        float(labels["num_gpu_blocks"]) * float(labels["block_size"])
        for labels, _ in series.get("vllm:cache_config_info", ())
        if labels.get("num_gpu_blocks", "").isdigit() and labels.get("block_size", "").isdigit()
    ]
    row["kv_capacity_tokens"] = sum(tokens) if tokens else None
    if row["is_awake"] is None:
        row["is_awake"] = 1.0  # without that metric the engine cannot sleep: who answers is awake


def _sglang_derived(series: Series, row: Row) -> None:
    row["is_awake"] = 1.0
    # Cached tokens are told by tier in newer versions, and perhaps as a total beside them.
    if any(labels.get("cache_source") == "total" for labels, _ in series.get("sglang:cached_tokens_total", ())):
        row["prefix_hits_total"] = _value(
            series, Source("sglang:cached_tokens_total", "sum", (("cache_source", "total"),))
        )
    capacity, used = row["kv_capacity_tokens"], _value(series, Source("sglang:num_used_tokens"))
    if row["kv_used"] is None and capacity and used is not None:
        row["kv_used"] = used / capacity


def _llama_derived(_series: Series, _row: Row) -> None:
    """``/slots`` and ``/props`` tell the rest."""


FORMS: Final[tuple[TextForm, ...]] = (
    TextForm(
        "vllm",
        "vllm:",
        {
            "running": _one("vllm:num_requests_running"),
            "waiting": _one("vllm:num_requests_waiting"),
            # gpu_cache_usage_perc until 0.10; a fraction in spite of its name.
            "kv_used": _one("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc", how="max"),
            "prompt_tokens_total": _one("vllm:prompt_tokens_total"),
            "output_tokens_total": _one("vllm:generation_tokens_total"),
            "requests_total": _one("vllm:request_success_total"),
            "preemptions_total": _one("vllm:num_preemptions_total"),
            "prefix_queries_total": _one("vllm:prefix_cache_queries_total", "vllm:gpu_prefix_cache_queries_total"),
            "prefix_hits_total": _one("vllm:prefix_cache_hits_total", "vllm:gpu_prefix_cache_hits_total"),
            "ttft_sum_s": _one("vllm:time_to_first_token_seconds_sum"),
            "ttft_count": _one("vllm:time_to_first_token_seconds_count"),
            "tpot_sum_s": _one(
                "vllm:request_time_per_output_token_seconds_sum",
                "vllm:inter_token_latency_seconds_sum",
                "vllm:time_per_output_token_seconds_sum",
            ),
            "tpot_count": _one(
                "vllm:request_time_per_output_token_seconds_count",
                "vllm:inter_token_latency_seconds_count",
                "vllm:time_per_output_token_seconds_count",
            ),
            "queue_wait_sum_s": _one("vllm:request_queue_time_seconds_sum"),
            "queue_wait_count": _one("vllm:request_queue_time_seconds_count"),
            "is_awake": (Source("vllm:engine_sleep_state", "max", (("sleep_state", "awake"),)),),
        },
        _vllm_derived,
        ("vllm:cache_config_info",),
    ),
    TextForm(
        "sglang",
        "sglang:",
        {
            "running": _one("sglang:num_running_reqs"),
            "waiting": _one("sglang:num_queue_reqs"),
            "kv_used": _one("sglang:token_usage", how="max"),
            "kv_capacity_tokens": _one("sglang:max_total_num_tokens"),
            "prompt_tokens_total": _one("sglang:prompt_tokens_total"),
            "output_tokens_total": _one("sglang:generation_tokens_total"),
            "requests_total": _one("sglang:num_requests_total"),
            "preemptions_total": _one("sglang:num_retracted_requests_total"),
            "prefix_queries_total": _one("sglang:prompt_tokens_total"),
            "prefix_hits_total": _one("sglang:cached_tokens_total"),
            "ttft_sum_s": _one("sglang:time_to_first_token_seconds_sum"),
            "ttft_count": _one("sglang:time_to_first_token_seconds_count"),
            "tpot_sum_s": _one("sglang:inter_token_latency_seconds_sum", "sglang:time_per_output_token_seconds_sum"),
            "tpot_count": _one(
                "sglang:inter_token_latency_seconds_count", "sglang:time_per_output_token_seconds_count"
            ),
            "queue_wait_sum_s": _one("sglang:queue_time_seconds_sum"),
            "queue_wait_count": _one("sglang:queue_time_seconds_count"),
        },
        _sglang_derived,
        ("sglang:num_used_tokens", "sglang:cached_tokens_total"),
    ),
    TextForm(
        "llama.cpp",
        "llamacpp:",
        {
            "running": _one("llamacpp:requests_processing"),
            "waiting": _one("llamacpp:requests_deferred"),
            "kv_used": _one("llamacpp:kv_cache_usage_ratio"),  # gone since 2025
            "prompt_tokens_total": _one("llamacpp:prompt_tokens_total"),
            "output_tokens_total": _one("llamacpp:tokens_predicted_total"),
            "tpot_sum_s": _one("llamacpp:tokens_predicted_seconds_total"),
            "tpot_count": _one("llamacpp:tokens_predicted_total"),
        },
        _llama_derived,
    ),
)


def llama_slots(body: bytes, row: Row) -> None:
    """Fills in what llama.cpp's ``/slots`` tells: requests in progress and the context that they hold.

    Raises
    ------
    ValueError
        If it is no list of slots.
    """
    slots = json.loads(body)
    if not isinstance(slots, list) or not all(isinstance(slot, dict) for slot in slots):
        raise ValueError("no list of slots")
    busy = [slot for slot in slots if _is_busy(slot)]
    if row.get("running") is None:
        row["running"] = float(len(busy))
    capacities = [_number(slot.get("n_ctx")) for slot in slots]
    if not capacities or any(not each for each in capacities):
        return
    capacity = sum(each for each in capacities if each is not None)
    row["kv_capacity_tokens"] = capacity
    held = [_held(slot) for slot in busy]
    if row.get("kv_used") is None and all(each is not None for each in held):
        row["kv_used"] = min(1.0, sum(each for each in held if each is not None) / capacity)


def llama_props(body: bytes, row: Row) -> None:
    """Fills in what ``/props`` tells: whether the model sleeps.

    Raises
    ------
    ValueError
        If it is no object.
    """
    props = json.loads(body)
    if not isinstance(props, dict):
        raise ValueError("no object")
    row["is_awake"] = 0.0 if props.get("is_sleeping") is True else 1.0


def _is_busy(slot: Mapping[str, Any]) -> bool:
    # Older servers number the state: 1 is at work.
    return slot["is_processing"] is True if "is_processing" in slot else slot.get("state") == 1


def _held(slot: Mapping[str, Any]) -> float | None:
    """Tokens of context that a busy slot holds, where it says."""
    past = _number(slot.get("n_past"))
    if past is not None:
        return past
    following = slot.get("next_token")
    if isinstance(following, list):
        following = following[0] if following else None
    decoded = _number(following.get("n_decoded")) if isinstance(following, dict) else None
    prompt = _number(slot.get("n_prompt_tokens"))
    return None if prompt is None or decoded is None else prompt + decoded


def ollama_models(body: bytes, model: str | None) -> Row:
    """What Ollama's ``/api/ps`` tells of one model, or of all that are loaded.

    Raises
    ------
    ValueError
        If it is no list of models.
    """
    given = json.loads(body)
    models = given.get("models") if isinstance(given, dict) else None
    if models is None and isinstance(given, dict) and "models" in given:
        models = []  # nothing loaded, as Go writes it
    if not isinstance(models, list) or not all(isinstance(each, dict) for each in models):
        raise ValueError("no list of models")
    if model is not None:
        wanted = {model, f"{model}:latest"}
        models = [each for each in models if each.get("name") in wanted or each.get("model") in wanted]
    row: Row = {"is_awake": 1.0 if models else 0.0}
    sizes = [_number(each.get("size_vram")) for each in models]
    if all(size is not None for size in sizes):
        row["memory_used_bytes"] = float(sum(size for size in sizes if size is not None))
    return row


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        return None
    return float(value)
