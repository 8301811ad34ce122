"""From plain mappings to the frozen dataclasses of `_schema`: types, bounds and unknown keys.

Required packages are numpy, nvidia-ml-py and onnxruntime alone, hence this small walker. It knows the types that
settings have: str, int, float, bool, Literal, ``X | None``, ``Sequence[X]`` (held as a tuple) and dataclasses.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from zeta.errors import ConfigError

__all__ = ["EnvText", "check_value", "from_mapping"]

T = TypeVar("T")


class EnvText(str):
    """Text from the environment, where every value is text: it may stand for a number or a truth value."""

    __slots__ = ()


@functools.cache
def _hints(cls: Any) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def check_value(cls: type, field: dataclasses.Field[Any], value: object) -> object:
    """`value` as field `field` of `cls` holds it.

    Raises
    ------
    ConfigError
        If its type or size is not what the field allows.
    """
    return _convert(_hints(cls)[field.name], value, f"{cls.__name__}.{field.name}", field.metadata)


def from_mapping(cls: type[T], raw: object, path: str = "") -> T:
    """Builds dataclass `cls` from `raw`, as TOML or YAML gives it.

    Parameters
    ----------
    cls : type
        A dataclass of `_schema`.
    raw : object
        Should be a mapping with text keys.
    path : str, default ""
        Dotted path of `raw` in its file, for messages.

    Raises
    ------
    ConfigError
        With the dotted path of the first thing that does not fit.
    """
    if not isinstance(raw, Mapping):
        raise _wrong(path or "the file", raw, "a table of keys and values")
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in raw:
        if key not in fields:
            raise _unknown_key(cls, str(key), raw[key], path)
    for name, field in fields.items():
        if name not in raw and field.default is dataclasses.MISSING:
            raise ConfigError(
                f"{_join(path, name)} is missing; it is {field.metadata['why']}", _join(path, name), None, "a value"
            )
    values = {
        name: _convert(hints[name], raw[name], _join(path, name), field.metadata)
        for name, field in fields.items()
        if name in raw
    }
    try:
        return cls(**values)
    except ConfigError as error:
        if not path:
            raise
        at = _join(path, error.key or "")
        raise ConfigError(f"{path}.{error.message}", at, error.value, error.allowed, error.nearest) from None


def _convert(hint: Any, value: object, path: str, meta: Mapping[str, Any]) -> object:
    origin = typing.get_origin(hint)
    if origin is types.UnionType or origin is typing.Union:
        if value is None or (isinstance(value, EnvText) and value.lower() == "none"):
            return None
        (inner,) = (arm for arm in typing.get_args(hint) if arm is not type(None))
        return _convert(inner, value, path, meta)
    if origin is typing.Literal:
        return _choice(typing.get_args(hint), value, path)
    if origin is Sequence:
        return _items(typing.get_args(hint)[0], value, path)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return value if isinstance(value, hint) else from_mapping(hint, value, path)
    if hint is str:
        if not isinstance(value, str):
            raise _wrong(path, value, "text")
        return str(value)
    return _within(_number(hint, value, path, meta), path, meta)


def _choice(allowed: tuple[Any, ...], value: object, path: str) -> object:
    for choice in allowed:
        if value == choice:
            return choice
    near = _nearest(str(value), allowed)
    hint = f"; did you mean {near!r}?" if near else ""
    names = " | ".join(map(str, allowed))
    raise ConfigError(f"{path} = {_shown(value)}; expected one of {names}{hint}", path, value, names, near)


def _items(inner: Any, value: object, path: str) -> tuple[object, ...]:
    if isinstance(value, str | Mapping) or not hasattr(value, "__iter__"):
        raise _wrong(path, value, "a list" + (f" (in TOML: [[{path}]])" if dataclasses.is_dataclass(inner) else ""))
    return tuple(_convert(inner, item, f"{path}[{index}]", {}) for index, item in enumerate(value))


def _number(hint: Any, value: object, path: str, meta: Mapping[str, Any]) -> int | float | bool:
    unit = f" in {meta['unit']}" if meta.get("unit") else ""
    expected = {int: f"a whole number{unit}", float: f"a number{unit}", bool: "true or false"}[hint]
    if isinstance(value, EnvText):
        try:
            return {"true": True, "false": False}[value.lower()] if hint is bool else typing.cast(float, hint(value))
        except (KeyError, ValueError):
            raise _wrong(path, value, expected) from None
    if isinstance(value, bool) is not (hint is bool) or not isinstance(value, int | float):
        raise _wrong(path, value, expected)
    if hint is float:
        return float(value)
    if not isinstance(value, int):
        raise _wrong(path, value, expected)
    return value


def _within(value: float, path: str, meta: Mapping[str, Any]) -> float:
    low, high = meta.get("low"), meta.get("high")
    if math.isfinite(value) and (low is None or value >= low) and (high is None or value <= high):
        return value
    bounds = (
        "finite"
        if low is None and high is None
        else " and ".join(
            text
            for text in (f">= {low:g}" if low is not None else "", f"<= {high:g}" if high is not None else "")
            if text
        )
    )
    unit = f" {meta['unit']}" if meta.get("unit") else ""
    raise ConfigError(f"{path} = {value!r}; expected {bounds}{unit}", path, value, bounds)


def _wrong(path: str, value: object, expected: str) -> ConfigError:
    return ConfigError(f"{path} = {_shown(value)}; expected {expected}", path, value, expected)


def _unknown_key(cls: type, key: str, value: object, path: str) -> ConfigError:
    known = [field.name for field in dataclasses.fields(cls)]
    near = _nearest(key, known)
    table = f"[{path}]" if path else "the top level"
    hint = f"; did you mean {near!r}?" if near else ""
    allowed = ", ".join(known)
    message = f"{_join(path, key)} = {_shown(value)} is not a key of {table}{hint} (known keys: {allowed})"
    return ConfigError(message, _join(path, key), value, allowed, near)


def _nearest(word: str, known: typing.Iterable[str]) -> str | None:
    import difflib

    by_folded = {name.lower().replace("-", "_"): name for name in known}
    near = difflib.get_close_matches(word.lower().replace("-", "_"), by_folded, n=1, cutoff=0.5)
    return by_folded[near[0]] if near else None


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path and key else path or key


def _shown(value: object) -> str:
    text = repr(str(value)) if isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
