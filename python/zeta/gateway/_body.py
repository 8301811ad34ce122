"""The body of a completions request: what it asks for, and what a server is sent in its place.

What goes out is written anew from what was understood, so that a server cannot understand a body differently (a key
given twice, say). Keys that the gateway does not know pass as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from zeta.config import Config, Engine, Model, Serve
from zeta.gateway._answers import Refusal
from zeta.gateway._head import Head

__all__ = ["AUTO", "ROUTES", "Ask", "Catalogue", "is_json", "read_ask", "sent_body"]

AUTO: Final = "zeta/auto"
ROUTES: Final = {
    b"/v1/chat/completions": "chat",
    b"/v1/completions": "completions",
    b"/v1/embeddings": "embeddings",
}
_TIERS: Final = {"priority": 0, "auto": 1, "default": 1, "standard": 1, "scale": 1, "flex": 2, "batch": 3}
_BYTES_PER_TOKEN: Final = 4
_TOKENS_PER_MESSAGE: Final = 4  # the marks that a chat template puts around each
_TOKENS_PER_IMAGE: Final = 576  # one tile of 336 x 336 in patches of 14
# A body with no other keys, under a head without hints, says nothing else that the gateway reads.
_PLAIN: Final = frozenset(
    ("model", "messages", "prompt", "input", "stream", "max_tokens", "max_completion_tokens", "temperature", "top_p")
) | {"stop", "seed", "frequency_penalty", "presence_penalty", "response_format", "tools", "tool_choice"}
_DEFAULT_MAX_TOKENS: Final = {"chat": None, "completions": 16, "embeddings": 0}

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class Ask(msgspec.Struct, gc=False):
    """What one request asks for. Made in C: one is made for each request."""

    route: str
    body: dict[str, Any]
    models: tuple[str, ...] | None
    """Those that may answer; None: any."""
    is_stream: bool
    wants_usage: bool
    """Whether the client itself asked for the usage at the end of a stream."""
    prompt_tokens: int
    max_tokens: int | None
    priority: int = 1
    deadline_ms: float | None = None
    affinity_key: str | None = None
    complexity: float | None = None


class Catalogue:
    """The names under which models are offered.

    Parameters
    ----------
    config : Config
    is_up : callable
        Whether a model has a replica that takes requests now.
    """

    def __init__(self, config: Config, is_up: Callable[[str], bool]) -> None:
        self._is_up = is_up
        self._by_name: dict[str, Model] = {}
        self._one: dict[str, tuple[str, ...]] = {}
        for model in config.models:
            for name in (model.name, *model.aliases):
                self._by_name[name] = model
                self._one[name] = (model.name,)
        self.served_names = {model.name: model.served_name or model.name for model in config.models}

    @property
    def names(self) -> tuple[str, ...]:
        """Everything that ``model`` may say."""
        return (AUTO, *self._by_name)

    def models_of(self, name: str) -> tuple[str, ...] | None:
        """The models that may answer a request for `name`; None: any.

        Raises
        ------
        Refusal
            404, if nothing is called so.
        """
        if name == AUTO:
            return None
        models = self._one.get(name)
        if models is None:
            known = ", ".join(self.names)
            raise Refusal(404, f"no model is called {name[:80]!r}; known: {known}", "model_not_found", "model")
        if not self._is_up(models[0]):
            standing_in = tuple(other for other in self._by_name[name].fallbacks if self._is_up(other))
            return standing_in[:1] or models
        return models


def read_ask(route: str, head: Head, raw: bytes, catalogue: Catalogue, serve: Serve) -> Ask:
    """Understands a request.

    Raises
    ------
    Refusal
        400 or 404, naming the key that is wrong.
    """
    try:
        body = _decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise Refusal(400, "the body is not JSON; send one JSON object", "invalid_json") from None
    if type(body) is not dict:
        raise Refusal(400, "the body is no JSON object; send {...} with model and messages", "invalid_json")
    if not _is_shallow(body) and _is_deeper(body, serve.max_json_depth):
        raise Refusal(400, f"the body nests deeper than {serve.max_json_depth} levels", "too_deep")
    name = body.get("model")
    if type(name) is not str or not name:
        raise _wrong("model", f"the name of a model: {', '.join(catalogue.names)}")
    stream = body.get("stream")
    if stream is not None and type(stream) is not bool:
        raise _wrong("stream", "true or false")
    if head.is_plain and body.keys() <= _PLAIN:
        models, is_stream = catalogue.models_of(name), stream is True and route != "embeddings"
        return Ask(
            route, body, models, is_stream, False, _prompt_tokens(route, body), _max_tokens(route, body, 1, serve)
        )
    choices = body.get("n")
    if choices is not None and not (type(choices) is int and 1 <= choices <= serve.max_choices):
        raise _wrong("n", f"a whole number from 1 to {serve.max_choices}")
    for key in ("best_of", "top_logprobs"):
        if key in body and not (body[key] is None or (type(body[key]) is int and 0 <= body[key] <= 20)):
            raise _wrong(key, "a whole number from 0 to 20")
    options = body.get("stream_options")
    if options is not None and type(options) is not dict:
        raise _wrong("stream_options", "an object")
    affinity = body.get("prompt_cache_key") or body.get("user")
    return Ask(
        route,
        body,
        catalogue.models_of(name),
        stream is True and route != "embeddings",
        options is not None and options.get("include_usage") is True,
        _prompt_tokens(route, body),
        _max_tokens(route, body, choices or 1, serve),
        _priority(body, head.fields),
        _number(head.fields, b"x-zeta-deadline-ms", 1e9, "milliseconds to the first token"),
        affinity if type(affinity) is str else None,
        _number(head.fields, b"x-zeta-complexity", 1.0, "a difficulty from 0 to 1"),
    )


def is_json(raw: bytes) -> bool:
    """Whether it is one whole document."""
    try:
        _decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return False
    return True


def sent_body(ask: Ask, served_name: str, engine: Engine, sends_priority: bool) -> bytes:
    """The body for a server.

    Parameters
    ----------
    ask : Ask
    served_name : str
        What the server calls the model.
    engine : str
        Decides which way priorities count.
    sends_priority : bool
        Whether the server takes a priority at all.
    """
    body = ask.body
    body["model"] = served_name
    body.pop("service_tier", None)
    if sends_priority:
        # vLLM takes the lowest first, SGLang the highest.
        body["priority"] = -ask.priority if engine == "sglang" else ask.priority
    else:
        body.pop("priority", None)
    if ask.is_stream and not ask.wants_usage:
        body["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
    return _encode(body)


def _prompt_tokens(route: str, body: dict[str, Any]) -> int:
    """About how many, from the length of the text; servers count exactly, and the router learns the ratio of work."""
    if route != "chat":
        key = "input" if route == "embeddings" else "prompt"
        return _tokens_of(body.get(key), key)
    messages = body.get("messages")
    if type(messages) is not list or not messages:
        raise _wrong("messages", "a list of messages, at least one")
    size = 0
    for message in messages:
        if type(message) is not dict:
            raise _wrong("messages", "a list of objects with role and content")
        content = message.get("content")
        if type(content) is str:
            size += len(content)
        elif type(content) is list:
            size += sum(_part_bytes(part) for part in content)
        elif content is not None:
            raise _wrong("messages", "messages whose content is text or a list of parts")
    return max(1, size // _BYTES_PER_TOKEN + _TOKENS_PER_MESSAGE * len(messages))


def _part_bytes(part: Any) -> int:
    if type(part) is not dict:
        raise _wrong("messages", "parts that are objects with a type")
    text = part.get("text")
    return len(text) if type(text) is str else _TOKENS_PER_IMAGE * _BYTES_PER_TOKEN


def _tokens_of(prompt: Any, key: str) -> int:
    if type(prompt) is str:
        return max(1, len(prompt) // _BYTES_PER_TOKEN)
    if type(prompt) is list and prompt:
        if all(type(part) is int for part in prompt):
            return len(prompt)
        if all(type(part) is str for part in prompt):
            return max(1, sum(map(len, prompt)) // _BYTES_PER_TOKEN)
        if all(type(part) is list for part in prompt):
            return max(1, sum(map(len, prompt)))
    raise _wrong(key, "text, a list of texts, or token numbers")


def _max_tokens(route: str, body: dict[str, Any], choices: int, serve: Serve) -> int | None:
    key = "max_completion_tokens" if body.get("max_completion_tokens") is not None else "max_tokens"
    most = body.get(key)
    if most is None:
        return _DEFAULT_MAX_TOKENS[route]
    if type(most) is not int or most < 1:
        raise _wrong(key, "a whole number of at least 1")
    if most > serve.max_output_tokens:
        body[key] = most = serve.max_output_tokens
    return most * choices


def _priority(body: dict[str, Any], fields: Mapping[bytes, bytes]) -> int:
    shown = fields.get(b"x-zeta-priority")
    if shown is not None:
        if shown not in (b"0", b"1", b"2", b"3"):
            raise Refusal(400, "the header X-Zeta-Priority may be 0 (first) to 3 (last)", "invalid_priority")
        return int(shown)
    given = body.get("priority")
    if given is not None:
        if type(given) is not int or not 0 <= given <= 3:
            raise _wrong("priority", "a whole number from 0 (first) to 3 (last)")
        return int(given)
    tier = body.get("service_tier")
    if tier is None:
        return 1
    if type(tier) is not str or tier not in _TIERS:
        raise _wrong("service_tier", f"one of {', '.join(_TIERS)}")
    return _TIERS[tier]


def _number(fields: Mapping[bytes, bytes], name: bytes, most: float, meaning: str) -> float | None:
    shown = fields.get(name)
    if shown is None:
        return None
    try:
        value = float(shown)
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= most:
        raise Refusal(400, f"the header {name.decode()} is {meaning}, at most {most:g}", "invalid_header")
    return value


def _is_shallow(body: dict[str, Any]) -> bool:
    """Whether it holds no more than lists, and lists of flat objects, as most do."""
    for value in body.values():
        if type(value) is dict:
            return False
        if type(value) is list:
            for each in value:
                if type(each) is list:
                    return False
                if type(each) is dict:
                    for inner in each.values():
                        if type(inner) is dict or type(inner) is list:
                            return False
    return True


def _is_deeper(value: Any, levels: int) -> bool:
    layer = [value]
    for _ in range(levels + 1):
        layer = [
            inner
            for each in layer
            for inner in (each.values() if type(each) is dict else each)
            if type(inner) is dict or type(inner) is list
        ]
        if not layer:
            return False
    return True


def _wrong(key: str, expected: str) -> Refusal:
    return Refusal(400, f"{key} is missing or wrong; expected {expected}", f"invalid_{key}", key)
