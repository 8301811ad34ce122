"""Where settings come from: code, then a TOML or YAML file, then the environment; the later one wins."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zeta.config._convert import EnvText, from_mapping
from zeta.config._schema import Config
from zeta.errors import ConfigError, MissingExtraError

__all__ = ["ENV_PREFIX", "load", "loads"]

ENV_PREFIX = "ZETA_"


def load(path: str | os.PathLike[str], env: Mapping[str, str] | None = None) -> Config:
    """Reads and checks a configuration file.

    Parameters
    ----------
    path : path-like
        A ``.toml``, ``.yaml`` or ``.yml`` file. YAML needs the extra ``cli``.
    env : mapping of str to str, optional
        The environment; ``os.environ`` by default. ``ZETA_SCHEDULER__POLICY=even`` sets ``scheduler.policy``, and
        ``ZETA_MODELS__0__QUALITY=0.6`` sets ``models[0].quality``; other variables are left alone.

    Returns
    -------
    Config
        With at least one model, and at least one replica for each.

    Raises
    ------
    ConfigError
        If the file cannot be read or anything in it cannot be used.
    MissingExtraError
        If the file is YAML and PyYAML is not installed.
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "it is not UTF-8 text"
        raise ConfigError(
            f"cannot read {file}: {reason}", value=str(file), allowed="a readable TOML or YAML file"
        ) from None
    kind = {".toml": "toml", ".yaml": "yaml", ".yml": "yaml"}.get(file.suffix.lower())
    if kind is None:
        raise ConfigError(
            f"{file} ends in {file.suffix!r}; expected .toml, .yaml or .yml",
            value=str(file),
            allowed=".toml, .yaml, .yml",
        )
    try:
        return loads(text, kind, os.environ if env is None else env)
    except ConfigError as error:
        message = f"{file}: {error.message}"
        raise ConfigError(message, error.key, error.value, error.allowed, error.nearest) from None


def loads(text: str, kind: str = "toml", env: Mapping[str, str] | None = None) -> Config:
    """As `load`, from text; `kind` is ``"toml"`` or ``"yaml"``, and the environment is empty by default."""
    raw = _parse_toml(text) if kind == "toml" else _parse_yaml(text)
    config = from_mapping(Config, _overridden(raw, env or {}))
    if not config.models:
        raise ConfigError("models: none given; add at least one [[models]] table", "models", (), "at least one")
    for index, model in enumerate(config.models):
        if not model.replicas:
            raise ConfigError(
                f"models[{index}] ({model.name!r}) has no replica; add a [[models.replicas]] table with a name",
                f"models[{index}].replicas",
                (),
                "at least one",
            )
    return config


def _parse_toml(text: str) -> Any:
    import tomllib

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"not TOML: {error}") from None


def _parse_yaml(text: str) -> Any:
    try:
        import yaml
    except ImportError:
        raise MissingExtraError("reading YAML", ["pyyaml"], "cli") from None
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"not YAML: {' '.join(str(error).split())}") from None
    return {} if raw is None else raw


def _overridden(raw: Any, env: Mapping[str, str]) -> Any:
    """`raw` with every ``ZETA_A__B`` of `env` put in place. Names without ``__`` are not settings."""
    for name in sorted(env):
        if name.startswith(ENV_PREFIX) and "__" in name:
            _put(raw, name.removeprefix(ENV_PREFIX).lower().split("__"), EnvText(env[name]), name)
    return raw


def _put(into: Any, keys: list[str], value: EnvText, name: str) -> None:
    for depth, key in enumerate(keys):
        is_last = depth == len(keys) - 1
        if isinstance(into, list):
            if not key.isdecimal() or int(key) >= len(into):
                raise ConfigError(
                    f"{name} counts to {key!r}; expected an index from 0 to {len(into) - 1}",
                    name,
                    str(value),
                    "an index",
                )
            slot: Any = int(key)
        elif isinstance(into, dict):
            slot = key
            if not is_last:
                into.setdefault(slot, {})
        else:
            raise ConfigError(
                f"{name} reaches into a plain value at {key!r}; expected a table", name, str(value), "a table"
            )
        if is_last:
            into[slot] = value
        else:
            into = into[slot]
