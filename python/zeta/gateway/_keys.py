"""Who asks: from the key of a request to its tenant."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from zeta.config import Key
from zeta.errors import ConfigError

__all__ = ["Identity", "Keys"]


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose request it is."""

    tenant: str
    is_admin: bool


class Keys:
    """The keys that are let in, as hashes.

    Parameters
    ----------
    keys : sequence of Key
        None at all: everybody is tenant ``default`` and may do everything, so the gateway must listen on loopback only.
    environment : mapping, optional
        Where keys with ``env`` are looked up; ``os.environ`` by default.

    Raises
    ------
    ConfigError
        If a variable is not set, or two keys are the same.
    """

    def __init__(self, keys: Sequence[Key], environment: Mapping[str, str] | None = None) -> None:
        known = os.environ if environment is None else environment
        self._identities: dict[bytes, Identity] = {}
        for index, key in enumerate(keys):
            if key.sha256 is not None:
                digest = bytes.fromhex(key.sha256)
            else:
                text = known.get(key.env or "")
                if not text:
                    raise ConfigError(
                        f"serve.keys[{index}].env = {key.env!r}, which is not set; export it with the key of tenant "
                        f"{key.tenant!r}",
                        f"serve.keys[{index}].env",
                        key.env,
                        "a variable that is set",
                    )
                digest = _digest(text.encode())
            if digest in self._identities:
                where = f"serve.keys[{index}]"
                raise ConfigError(f"{where} is a key that an earlier tenant has; give each its own", where)
            self._identities[digest] = Identity(key.tenant, key.is_admin)
        self._everybody = Identity("default", True) if not keys else None

    @property
    def is_open(self) -> bool:
        """Whether no key is asked for."""
        return self._everybody is not None

    def identify(self, shown: bytes | str | None) -> Identity | None:
        """Whose key it is.

        Parameters
        ----------
        shown : bytes, str or None
            The value of ``Authorization``, with or without ``Bearer``.

        Returns
        -------
        Identity or None
            None: let nobody in. What is compared is a hash, so the time it takes tells nothing about a key.
        """
        if self._everybody is not None:
            return self._everybody
        if shown is None:
            return None
        text = shown.encode("utf-8", "surrogateescape") if isinstance(shown, str) else shown
        if text[:7].lower() == b"bearer ":
            text = text[7:].strip()
        return self._identities.get(_digest(text))


def _digest(key: bytes) -> bytes:
    # Keys are long random text, so one round of a fast hash keeps them: there is nothing to guess.
    return hashlib.sha256(key).digest()
