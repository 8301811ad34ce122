"""Loading and unloading by the engines' own calls: vLLM, SGLang, llama.cpp's router, Ollama."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from zeta._http import Server
from zeta.allocate.actuators._engine import EngineActuator, EngineFailure, ask, servers_of
from zeta.clock import Clock

__all__ = ["LlamaCppRouterActuator", "OllamaActuator", "SglangMemoryActuator", "VllmSleepActuator"]


class VllmSleepActuator(EngineActuator):
    """Puts vLLM servers to sleep and wakes them. A `ResidencyActuator`.

    The servers run with ``--enable-sleep-mode`` and ``VLLM_SERVER_DEV_MODE=1`` in their environment.

    Parameters
    ----------
    servers : mapping of str to str
        The address of each model's own server.
    level : {1, 2}
        1 keeps the weights in the host's memory; 2 drops them.
    name, device : str
        For metrics and logs.
    deadline_s : float
        For one call, its confirmation included, in seconds.
    headers : mapping of str to str, optional
        Sent with every request, such as a key.
    dry_run : bool, default True
        Say what would be done, and ask nobody anything.
    clock : Clock, optional

    Raises
    ------
    ValueError
        If an address, the level or the deadline cannot be used.
    """

    def __init__(
        self,
        servers: Mapping[str, str],
        *,
        level: int = 1,
        name: str = "vllm-sleep",
        device: str = "device0",
        deadline_s: float = 60.0,
        headers: Mapping[str, str] | None = None,
        dry_run: bool = True,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(servers, name=name, device=device, deadline_s=deadline_s, dry_run=dry_run, clock=clock)
        if level not in (1, 2):
            raise ValueError(f"level = {level}; expected 1 (weights to the host's memory) or 2 (weights dropped)")
        self._servers = servers_of(servers, headers)
        self._level = level

    def _ask(self, model: str, call: str, until_s: float) -> Any:
        return ask(
            self._servers[model],
            "vLLM",
            call,
            None,
            until_s,
            absent="start it with --enable-sleep-mode and VLLM_SERVER_DEV_MODE=1 in its environment",
        )

    def _is_resident(self, model: str, until_s: float) -> bool:
        said = self._ask(model, "GET /is_sleeping", until_s)
        is_sleeping = said.get("is_sleeping") if isinstance(said, dict) else None
        if not isinstance(is_sleeping, bool):
            raise EngineFailure(
                f"vLLM at {self._servers[model].shown} answers GET /is_sleeping without is_sleeping; is vLLM there?"
            )
        return not is_sleeping

    def _order(self, model: str, want: bool, until_s: float) -> None:
        self._ask(model, "POST /wake_up" if want else f"POST /sleep?level={self._level}", until_s)

    def _resident(self, until_s: float) -> frozenset[str]:
        return frozenset(model for model in self._servers if self._is_resident(model, until_s))


class SglangMemoryActuator(EngineActuator):
    """Lets SGLang servers release their GPU memory and take it back. A `ResidencyActuator`.

    The servers run with ``--enable-memory-saver``. SGLang does not say whether its memory is released, and a server
    that is told to resume what it has not released ends. So this keeps account itself: nobody else may give the same
    orders, and after a failure whose effect is unknown it gives no more for that model until `restarted` is called.

    Parameters
    ----------
    servers : mapping of str to str
        The address of each model's own server.
    released : iterable of str
        Models whose memory is released already; a fresh server's is not.
    tags : sequence of str, optional
        Such as ``("kv_cache", "weights")``; by default everything.
    name, device, deadline_s, headers, dry_run, clock
        As for `VllmSleepActuator`.

    Raises
    ------
    ValueError
        If an address or the deadline cannot be used.
    """

    def __init__(
        self,
        servers: Mapping[str, str],
        *,
        released: Iterable[str] = (),
        tags: Sequence[str] | None = None,
        name: str = "sglang-memory",
        device: str = "device0",
        deadline_s: float = 60.0,
        headers: Mapping[str, str] | None = None,
        dry_run: bool = True,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(servers, name=name, device=device, deadline_s=deadline_s, dry_run=dry_run, clock=clock)
        self._servers = servers_of(servers, headers)
        self._body = {} if tags is None else {"tags": list(tags)}
        gone = frozenset(released)
        self._account: dict[str, bool | None] = {model: model not in gone for model in servers}

    def restarted(self, model: str) -> None:
        """The model's server has been started anew: its memory is its own again."""
        self._account[model] = True

    def _is_resident(self, model: str, until_s: float) -> bool:  # noqa: ARG002 - its own account needs no time
        known = self._account[model]
        if known is None:
            raise EngineFailure(
                f"what SGLang at {self._servers[model].shown} made of the last order is unknown, a wrong one ends it; "
                f"restart it and call restarted({model!r})"
            )
        return known

    def _order(self, model: str, want: bool, until_s: float) -> None:
        verb = "resume" if want else "release"
        server = self._servers[model]
        absent = "start it with --enable-memory-saver, and use a version that has this call"
        # Whether it answers at all is asked first, so that a server that is merely down leaves the account as it is.
        ask(server, "SGLang", "GET /health", None, until_s, absent="is SGLang at this address?")
        self._account[model] = None
        ask(server, "SGLang", f"POST /{verb}_memory_occupation", self._body, until_s, absent=absent)
        self._account[model] = want

    def _resident(self, until_s: float) -> frozenset[str] | None:  # noqa: ARG002
        if None in self._account.values():
            return None
        return frozenset(model for model, is_there in self._account.items() if is_there)


class LlamaCppRouterActuator(EngineActuator):
    """Loads and unloads models of a llama.cpp server in router mode. A `ResidencyActuator`.

    Parameters
    ----------
    server : str
        The router's address.
    models : iterable of str, optional
        Those that may be asked for; by default whichever the router lists.
    name, device, deadline_s, headers, dry_run, clock
        As for `VllmSleepActuator`.

    Raises
    ------
    ValueError
        If the address or the deadline cannot be used.
    """

    def __init__(
        self,
        server: str,
        *,
        models: Iterable[str] | None = None,
        name: str = "llama-cpp-router",
        device: str = "device0",
        deadline_s: float = 120.0,
        headers: Mapping[str, str] | None = None,
        dry_run: bool = True,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(models, name=name, device=device, deadline_s=deadline_s, dry_run=dry_run, clock=clock)
        self._server = Server(server, headers)

    def _ask(self, call: str, body: object, until_s: float) -> Any:
        absent = "start llama-server without a model, which makes it a router"
        return ask(self._server, "llama.cpp", call, body, until_s, absent=absent)

    def _states(self, until_s: float) -> dict[str, dict[str, Any]]:
        said = self._ask("GET /models", None, until_s)
        listed = said.get("data") if isinstance(said, dict) else None
        states = {
            each["id"]: each["status"]
            for each in (listed if isinstance(listed, list) else ())
            if isinstance(each, dict) and isinstance(each.get("id"), str) and isinstance(each.get("status"), dict)
        }
        if not states:
            raise EngineFailure(
                f"llama.cpp at {self._server.shown} lists no model with a status; "
                "start llama-server without a model, which makes it a router"
            )
        return states

    def _is_resident(self, model: str, until_s: float) -> bool | None:
        states = self._states(until_s)
        if model not in states:
            raise EngineFailure(
                f"llama.cpp at {self._server.shown} has no model {model!r}; it lists {', '.join(sorted(states))}"
            )
        return _is_ready(states[model])

    def _order(self, model: str, want: bool, until_s: float) -> None:
        said = self._ask("POST /models/load" if want else "POST /models/unload", {"model": model}, until_s)
        if isinstance(said, dict) and said.get("success") is False:
            raise EngineFailure(f"llama.cpp at {self._server.shown} refuses to move {model!r}; see its log")

    def _has_come(self, model: str, want: bool, until_s: float) -> bool:
        status = self._states(until_s).get(model, {})
        if want and status.get("failed"):
            raise EngineFailure(
                f"llama.cpp at {self._server.shown} could not load {model!r} "
                f"(exit code {status.get('exit_code')}); see its log"
            )
        return _is_ready(status) is want

    def _resident(self, until_s: float) -> frozenset[str]:
        return frozenset(model for model, status in self._states(until_s).items() if _is_ready(status))


def _is_ready(status: Mapping[str, Any]) -> bool | None:
    """A sleeping model wakes by itself with the next request; None for one that is on its way."""
    return {"loaded": True, "sleeping": True, "unloaded": False}.get(str(status.get("value")))


class OllamaActuator(EngineActuator):
    """Loads models of an Ollama server to stay, and unloads them. A `ResidencyActuator`.

    Parameters
    ----------
    server : str
        Its address.
    models : iterable of str, optional
        Those that may be asked for; by default any. A name without a tag means ``:latest``.
    name, device, deadline_s, headers, dry_run, clock
        As for `VllmSleepActuator`.

    Raises
    ------
    ValueError
        If the address or the deadline cannot be used.
    """

    def __init__(
        self,
        server: str,
        *,
        models: Iterable[str] | None = None,
        name: str = "ollama",
        device: str = "device0",
        deadline_s: float = 120.0,
        headers: Mapping[str, str] | None = None,
        dry_run: bool = True,
        clock: Clock | None = None,
    ) -> None:
        self._asked = None if models is None else frozenset(models)
        super().__init__(self._asked, name=name, device=device, deadline_s=deadline_s, dry_run=dry_run, clock=clock)
        self._server = Server(server, headers)

    def _loaded(self, until_s: float) -> frozenset[str]:
        said = ask(self._server, "Ollama", "GET /api/ps", None, until_s, absent="is Ollama at this address?")
        listed = said.get("models") if isinstance(said, dict) else None
        if not isinstance(listed, list):
            raise EngineFailure(f"Ollama at {self._server.shown} answers GET /api/ps without models; is Ollama there?")
        return frozenset(
            word for each in listed if isinstance(each, dict) for word in (each.get("name"), each.get("model")) if word
        )

    def _is_resident(self, model: str, until_s: float) -> bool:
        return _tagged(model) in self._loaded(until_s)

    def _order(self, model: str, want: bool, until_s: float) -> None:
        body = {"model": model, "keep_alive": -1 if want else 0, "stream": False}
        absent = f"get the model first: ollama pull {model}"
        ask(self._server, "Ollama", "POST /api/generate", body, until_s, absent=absent)

    def _resident(self, until_s: float) -> frozenset[str]:
        loaded = self._loaded(until_s)
        short = frozenset(word.removesuffix(":latest") for word in loaded if word.endswith(":latest"))
        if self._asked is None:
            return loaded
        return (loaded | short) & self._asked


def _tagged(model: str) -> str:
    return model if ":" in model.rpartition("/")[2] else f"{model}:latest"
