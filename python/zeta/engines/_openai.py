"""The OpenAI forms that engines speak: requests taken apart, answers put together. Pure."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal, TypeVar, cast

import numpy as np

from zeta.errors import MissingExtraError

try:
    import msgspec
except ImportError as error:
    raise MissingExtraError("serving an engine", ["msgspec", "httptools", "uvloop"], "serve") from error

__all__ = [
    "BadRequest",
    "Chat",
    "Completion",
    "Embedding",
    "StreamForm",
    "embedding_answer",
    "error_body",
    "json_body",
    "json_text",
    "models_answer",
    "parse",
    "prompts_of",
    "whole_answer",
]

_Tokens = Annotated[int, msgspec.Meta(ge=1, le=1 << 24)]
_MAX_DIMENSIONS: Final = 4096


class Part(msgspec.Struct):
    """Of a message's content."""

    type: str = "text"
    text: str = ""


class Message(msgspec.Struct):
    """One turn of a conversation."""

    role: str
    content: str | list[Part] | None = None

    def words(self) -> str:
        """Its text."""
        content = self.content
        return content if isinstance(content, str) else "".join(part.text for part in content or ())


class StreamOptions(msgspec.Struct):
    """Of a streamed answer."""

    include_usage: bool = False


class _Generation(msgspec.Struct, kw_only=True):
    model: str | None = None
    max_tokens: _Tokens | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    priority: int = 0
    ignore_eos: bool = False
    n: int | None = None
    temperature: float | None = None
    seed: int | None = None
    zeta_output_tokens: _Tokens | None = None
    zeta_prompt_tokens: _Tokens | None = None


class Chat(_Generation, kw_only=True):
    """``POST /v1/chat/completions``."""

    messages: Annotated[list[Message], msgspec.Meta(min_length=1)]
    max_completion_tokens: _Tokens | None = None


class Completion(_Generation, kw_only=True):
    """``POST /v1/completions``."""

    prompt: str | list[str | int | list[int]]


class Embedding(msgspec.Struct, kw_only=True):
    """``POST /v1/embeddings``."""

    input: str | list[str | int | list[int]]
    model: str | None = None
    dimensions: Annotated[int, msgspec.Meta(ge=1, le=_MAX_DIMENSIONS)] | None = None
    encoding_format: Literal["float", "base64"] = "float"
    priority: int = 0


class BadRequest(Exception):
    """A body that cannot be used; the text says what was given and what is expected."""


_DECODERS: Final = {form: msgspec.json.Decoder(form) for form in (Chat, Completion, Embedding)}
_encode: Final = msgspec.json.Encoder().encode


Form = TypeVar("Form", Chat, Completion, Embedding)


def parse(form: type[Form], body: bytes) -> Form:
    """The body as a form; fields that it does not name are passed over.

    Raises
    ------
    BadRequest
        If it is no JSON, or not of this form.
    """
    try:
        return cast("Form", _DECODERS[form].decode(body))
    except msgspec.ValidationError as error:
        raise BadRequest(f"the body is not as expected: {error}") from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BadRequest(f"the body is not JSON: {error}") from None


def prompts_of(given: str | list[str | int | list[int]]) -> list[str | list[int]]:
    """A ``prompt`` or ``input`` in any of OpenAI's four shapes, as a list of texts or token lists.

    Raises
    ------
    BadRequest
        If it is empty or mixes texts and tokens.
    """
    if isinstance(given, str):
        return [given]
    if given and all(isinstance(token, int) for token in given):
        return [cast("list[int]", given)]
    if not given or any(isinstance(each, int) or not each for each in given):
        raise BadRequest("the prompt is empty, or mixes texts and tokens; expected a text, tokens, or a list of either")
    return cast("list[str | list[int]]", given)


def json_text(text: str) -> bytes:
    """The text as it stands between the quotes of a JSON string."""
    return _encode(text)[1:-1]


def json_body(value: Any) -> bytes:
    """Any JSON."""
    return _encode(value)


def error_body(message: str, kind: str, code: str | None, param: str | None = None) -> bytes:
    """OpenAI's form of an error."""
    return _encode({"error": {"message": message, "type": kind, "param": param, "code": code}})


class StreamForm:
    """The events of one streamed answer: each token between the same two pieces of JSON.

    Parameters
    ----------
    is_chat : bool
    ident : bytes
        The answer's id.
    created : int
        Unix time, in seconds.
    model : bytes
        As it stands inside a JSON string.
    """

    __slots__ = ("_after", "_before", "_head", "_is_chat")

    def __init__(self, is_chat: bool, ident: bytes, created: int, model: bytes) -> None:
        self._is_chat = is_chat
        kind = b"chat.completion.chunk" if is_chat else b"text_completion"
        self._head = b'data: {"id":"%b","object":"%b","created":%d,"model":"%b","choices":[' % (
            ident,
            kind,
            created,
            model,
        )
        if is_chat:
            self._before = self._head + b'{"index":0,"delta":{"content":"'
            self._after = b'"},"logprobs":null,"finish_reason":null}]}\n\n'
        else:
            self._before = self._head + b'{"index":0,"text":"'
            self._after = b'","logprobs":null,"finish_reason":null}]}\n\n'

    def first(self, piece: bytes) -> bytes:
        """The event of the first token: it also says who speaks."""
        if not self._is_chat:
            return b"%b%b%b" % (self._before, piece, self._after)
        return b'%b{"index":0,"delta":{"role":"assistant","content":"%b%b' % (self._head, piece, self._after)

    def tokens(self, pieces: Sequence[bytes]) -> bytes:
        """An event for each."""
        before, after = self._before, self._after
        if len(pieces) == 1:
            return b"%b%b%b" % (before, pieces[0], after)
        return b"".join([b"%b%b%b" % (before, piece, after) for piece in pieces])

    def end(self, finish: str, usage: tuple[int, int] | None) -> bytes:
        """Why it ended, usage (prompt and output tokens) where asked for, and ``[DONE]``."""
        empty = b'"delta":{}' if self._is_chat else b'"text":""'
        last = b'%b{"index":0,%b,"logprobs":null,"finish_reason":"%b"}]}\n\n' % (self._head, empty, finish.encode())
        if usage is not None:
            last += b'%b],"usage":%b}\n\n' % (self._head, _usage(*usage))
        return last + b"data: [DONE]\n\n"


def _usage(prompt_tokens: int, output_tokens: int) -> bytes:
    return b'{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}' % (
        prompt_tokens,
        output_tokens,
        prompt_tokens + output_tokens,
    )


def whole_answer(
    is_chat: bool,
    ident: bytes,
    created: int,
    model: bytes,
    pieces: Sequence[bytes],
    finish: str,
    usage: tuple[int, int],
) -> bytes:
    """The body of an answer that is not streamed; `model` and `pieces` as they stand inside JSON strings."""
    kind = b"chat.completion" if is_chat else b"text_completion"
    if is_chat:
        choice = b'"message":{"role":"assistant","content":"%b"}' % b"".join(pieces)
    else:
        choice = b'"text":"%b"' % b"".join(pieces)
    return (
        b'{"id":"%b","object":"%b","created":%d,"model":"%b","choices":[{"index":0,%b,"logprobs":null,'
        b'"finish_reason":"%b"}],"usage":%b}'
    ) % (ident, kind, created, model, choice, finish.encode(), _usage(*usage))


def embedding_answer(model: str, vectors: Sequence[Sequence[float]], as_base64: bool, prompt_tokens: int) -> bytes:
    """The body of an answer with embeddings."""
    rows: list[dict[str, Any]] = []
    for index, vector in enumerate(vectors):
        shown: Any = list(map(float, vector))
        if as_base64:
            shown = base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode()
        rows.append({"object": "embedding", "index": index, "embedding": shown})
    usage = {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens}
    return _encode({"object": "list", "data": rows, "model": model, "usage": usage})


def models_answer(model: str, kind: str, started: int, facts: Mapping[str, Any]) -> bytes:
    """The body of ``GET /v1/models``."""
    entry = {"id": model, "object": "model", "created": started, "owned_by": f"zeta-{kind}-engine", **facts}
    return _encode({"object": "list", "data": [entry]})
