"""``zeta doctor``: what was built, what is reachable, what is missing and how to get it.

Nothing heavy is imported: files and package metadata only. The one driver that is asked, NVIDIA's, is asked in a child
process, which may hang or crash.
"""

from __future__ import annotations

import argparse
import ctypes.util
import importlib.metadata
import importlib.util
import json
import logging
import platform
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zeta._core import build_info
from zeta._version import __version__

if TYPE_CHECKING:
    from zeta.cli._shared import Commands

__all__ = ["add_to", "examine"]

_DISTRIBUTION = "zeta-router"
_GPU_TRIES = 2
_GPU_PATIENCE_S = 12.0  # without persistence mode the driver needs seconds to wake the GPUs


def add_to(commands: Commands) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "doctor",
        help="what was built, what is reachable, what is missing and how to get it",
        description="Says what was built, what is reachable, and what is missing with the command that gets it.",
    )
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(run=_run)


def examine() -> dict[str, Any]:
    """Everything that the command prints, as plain values; None where something is absent or unknown."""
    required, extras = _requirements()
    return {
        "version": __version__,
        "build": build_info(),
        "python": platform.python_version(),
        "platform": {
            "system": platform.system().lower(),
            "machine": platform.machine(),
            "libc": " ".join(platform.libc_ver()).strip() or None,
            "kernel": platform.release(),
        },
        "required": {name: _version(name) for name in required},
        "onnxruntime_library": _onnxruntime_library(),
        "allocation_loop": _allocation_loop(),
        "nvml": {
            "library": ctypes.util.find_library("nvidia-ml"),
            "driver": _driver(),
            "bindings": _version("nvidia-ml-py"),
            "deprecated_pynvml": _version("pynvml"),
            **_gpus(),
        },
        "probes": _probes(),
        "extras": {
            extra: {
                "packages": {name: _version(name) for name in names},
                "is_complete": all(_version(name) for name in names),
                "get": f"pip install '{_DISTRIBUTION}[{extra}]'",
            }
            for extra, names in extras.items()
        },
    }


def _run(args: argparse.Namespace) -> int:
    found = examine()
    if args.json:
        print(json.dumps(found, indent=1))
    else:
        _print(found)
    return 0


def _print(found: dict[str, Any]) -> None:
    build, system, nvml = found["build"], found["platform"], found["nvml"]
    features = [name for name, present in build.get("cpu_features", {}).items() if present]
    print(f"zeta {found['version']}, built by {build['compiler']} with {build.get('flags', 'unknown flags')}")
    print(f"  CPU               {system['machine']}: {', '.join(features) or 'no vector unit that zeta uses'}")
    libc = system["libc"] or "libc unknown"
    print(f"  Python            {found['python']} on {system['system']} {system['kernel']}, {libc}")
    for name, version in found["required"].items():
        print(f"  {name:<17} {version or f'missing; pip install {name}'}")
    library = found["onnxruntime_library"]
    print(f"  its library       {library or 'not found: inference is possible from Python only'}")
    loop = found["allocation_loop"]
    print(f"  allocation loop   {loop['form']}: {loop['why']}")
    print(f"  forecasts         {loop['forecast']}")
    _print_gpus(nvml)
    if nvml["deprecated_pynvml"]:
        print("  note              the deprecated package pynvml is installed too; pip uninstall pynvml")
    for name, probe in found["probes"].items():
        known = f"{len(probe['known'])} of {len(probe['known']) + len(probe['unknown'])} fields known"
        print(f"  probe {name:<11} {probe['state']}: {probe['message'] or known}")
    for extra, state in found["extras"].items():
        absent = [name for name, version in state["packages"].items() if not version]
        text = "complete" if not absent else f"{', '.join(absent)} missing; {state['get']}"
        print(f"  extra {extra:<11} {text}")
    if not found["extras"]:
        print("  extras            unknown: zeta runs from a source tree without metadata")


def _print_gpus(nvml: dict[str, Any]) -> None:
    if nvml["missing"] is not None:
        print(f"  GPU readings      none: {nvml['missing']}; zeta works without")
    else:
        print(
            f"  GPU readings      by nvidia-ml-py {nvml['bindings']}, driver {nvml['driver'] or 'of unknown version'}"
        )
    for gpu in nvml["gpus"]:
        where = "  part" if gpu["parent"] else f"GPU {'?' if gpu['index'] is None else gpu['index']}"
        memory = gpu["memory_total_bytes"]
        size = "memory unknown" if memory is None else f"{memory / 2**30:.1f} GiB"
        print(f"  {where:<17} {gpu['name'] or 'name unknown'}, {size}, {gpu['uuid']}")


def _gpus() -> dict[str, Any]:
    """The GPUs that the monitor would read, or what keeps it from reading any."""
    from zeta.errors import ProbeUnavailable
    from zeta.monitor import NvmlProbe

    logging.getLogger("zeta.monitor").addHandler(logging.NullHandler())  # what is missing is printed once, below
    probe = NvmlProbe(deadline_s=_GPU_PATIENCE_S / 2)
    until_s = time.monotonic() + _GPU_PATIENCE_S
    missing: str | None = None
    try:
        while not (reading := probe.read()).rows:
            missing = probe.health().why or "the driver does not answer"
            fails_again = probe.health().state == "failing" and probe.health().child_starts > _GPU_TRIES
            if fails_again or time.monotonic() > until_s:
                break
            time.sleep(0.05)
        else:
            missing = None
    except ProbeUnavailable as error:
        return {"gpus": [], "missing": str(error).removeprefix("no GPU readings: ")}
    finally:
        health = probe.health()
        probe.close()
    gpus = [
        {
            "uuid": uuid,
            "index": reading.details[uuid].get("index"),
            "name": reading.details[uuid].get("name"),
            "pci_bus_id": reading.details[uuid].get("pci_bus_id"),
            "parent": reading.details[uuid].get("parent"),
            "memory_total_bytes": row.get("memory_total_bytes"),
        }
        for uuid, row in reading.rows.items()
    ]
    return {"gpus": gpus, "missing": missing} | ({"driver": health.driver} if health.driver else {})


def _probes() -> dict[str, dict[str, Any]]:
    """What each built-in probe finds here in two reads."""
    from zeta.monitor import HostProbe
    from zeta.runtime import examine

    found = {}
    for probe in (HostProbe(),):
        report, snapshot = examine(probe, deadline_s=2.0, reads=2)
        values = {field.name: getattr(snapshot.host, field.name) for field in probe.fields}
        found[report.name] = {
            "state": str(report.state),
            "message": report.message,
            "known": {name: value for name, value in values.items() if value is not None},
            "unknown": [name for name, value in values.items() if value is None],
        }
    return found


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _requirements() -> tuple[list[str], dict[str, list[str]]]:
    """Names of the required packages, and of those that each extra brings, from the package's own metadata."""
    required: list[str] = []
    extras: dict[str, list[str]] = {}
    for line in _requirement_lines():
        name = re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0]
        extra = re.search(r"""extra\s*==\s*['"]([\w-]+)['"]""", line)
        if name == _DISTRIBUTION:
            continue  # an extra that only gathers others
        if extra:
            extras.setdefault(extra.group(1), []).append(name)
        else:
            required.append(name)
    return required, extras


def _requirement_lines() -> list[str]:
    try:
        return importlib.metadata.requires(_DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        pass
    # A source tree: the same facts stand in pyproject.toml.
    project = Path(__file__).parents[3] / "pyproject.toml"
    if not project.is_file():
        return []
    import tomllib

    table = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
    extras = table.get("optional-dependencies", {})
    return [
        *table["dependencies"],
        *(f"{line}; extra == '{extra}'" for extra, lines in extras.items() for line in lines),
    ]


def _onnxruntime_library() -> str | None:
    """The shared library inside the onnxruntime package, which the native loop opens by itself."""
    spec = importlib.util.find_spec("onnxruntime")
    folders = spec.submodule_search_locations if spec else None
    for folder in folders or ():
        for library in sorted((Path(folder) / "capi").glob("libonnxruntime.so*")):
            return str(library)
    return None


def _allocation_loop() -> dict[str, str | None]:
    """Which form of the loop a router starts here, and where its forecasts come from."""
    from zeta.scheduler import SHIPPED_NET

    net = str(SHIPPED_NET) if SHIPPED_NET.is_dir() else None
    if net is None:
        forecast = "classical candidates: no net is installed"
    elif _onnxruntime_library() is None:
        forecast = (
            "classical candidates: a net is installed, but no ONNX Runtime library that native code could run it in"
        )
    else:
        forecast = "classical candidates and the net that is installed, behind a guard"
    return {
        "form": "native thread",
        "why": "it needs no interpreter; zeta.AllocationLoop is the Python form, for a policy or forecast in Python",
        "forecast": forecast,
        "net": net,
    }


def _driver() -> str | None:
    """The version of the loaded NVIDIA kernel driver."""
    try:
        first = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8", errors="replace").splitlines()[0]
    except (OSError, IndexError):
        return None
    version = re.search(r"\d+\.\d+(\.\d+)?", first)
    return version.group(0) if version else first.strip() or None
