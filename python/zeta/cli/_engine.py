"""``zeta engine --profile NAME``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zeta.cli._shared import Commands
    from zeta.engines import Server

__all__ = ["add_to"]

_DESCRIPTION = """
Serves a SIMULATED engine on the OpenAI protocol: real sockets, the times of a real engine, numbered words instead of an
answer. For load tests of what stands before engines. GET /metrics reads like vLLM's.

NAME is MODEL, MODEL@DEVICE (such as qwen2.5-7b@h200-sxm-141gb: step times, KV limit and batches from the same engine
model as `zeta replay`), or fixed:TTFT_MS:TPOT_MS (the same times whatever the load).
"""
_EXAMPLES = """
examples:
  zeta engine --profile qwen2.5-7b --port 8001
  zeta engine --profile fixed:50:10 --model small --print-port
"""


def add_to(commands: Commands) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "engine",
        help="serve a simulated engine, for load tests (extra 'serve')",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--profile", metavar="NAME", required=True, help="what it imitates")
    parser.add_argument("--model", metavar="NAME", help="the id that clients ask for; by default simulated-MODEL")
    parser.add_argument("--host", default="127.0.0.1", help="to listen on; by default 127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="by default a free one")
    parser.add_argument("--print-port", action="store_true", help="print the port alone, once it listens")
    parser.add_argument("--speed", metavar="X", type=float, default=1.0, help="its clock runs X times as fast")
    parser.add_argument("--tp", metavar="N", type=int, default=1, help="GPUs that the model is spread over")
    parser.add_argument("--kv-tokens", metavar="N", type=int, help="KV capacity; by default what the device has left")
    parser.add_argument("--max-batch", metavar="N", type=int, help="sequences in a step; by default 256")
    parser.add_argument(
        "--max-batched-tokens", metavar="N", type=int, default=2048, help="tokens in a step; by default 2048"
    )
    faults = parser.add_argument_group("faults, for tests")
    faults.add_argument("--refuse", action="store_true", help="answer every request with status 503")
    faults.add_argument("--fail-rate", metavar="P", type=float, default=0.0, help="this part ends with status 500")
    faults.add_argument("--stall-after", metavar="N", type=int, help="each answer falls silent after N tokens")
    faults.add_argument("--cut-after", metavar="N", type=int, help="each stream is cut off after N tokens")
    faults.add_argument("--seed", metavar="N", type=int, default=0, help="of the choice which ones fail")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from zeta import engines

    profile = engines.Profile.parse(
        args.profile,
        kv_tokens=args.kv_tokens,
        max_batch=args.max_batch,
        max_batched_tokens=args.max_batched_tokens,
        tp=args.tp,
    )

    def ready(server: Server) -> None:
        if args.print_port:
            print(server.port, flush=True)
        else:
            print(f"simulated engine {server.engine.model} ({args.profile}) at {server.url}/v1", flush=True)

    engines.run(
        lambda: engines.SimulatedEngine(profile, model=args.model, speed=args.speed),
        host=args.host,
        port=args.port,
        faults=engines.Faults(args.refuse, args.fail_rate, args.stall_after, args.cut_after, args.seed),
        ready=ready,
    )
    return 0
