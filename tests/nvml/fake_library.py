"""A ``libnvidia-ml.so.1`` without a GPU: generated from a table, built by gcc, steered through a file that it maps.

The real pynvml loads it in the real child. Each call looks into the file, so that one child meets every fault in turn.
Handles are positions in the driver's present list, as bad as drivers get: when a GPU is lost, the handles behind it
lead to other GPUs.
"""

from __future__ import annotations

import enum
import mmap
import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = ["CALLS", "ERRORS", "GIB", "Call", "FakeLibrary", "Fault", "build"]

GIB = 1 << 30
MAX_GPUS = 8
PARTS = 2  # MIG devices of a GPU in MIG mode

ERRORS = (*range(1, 31), 999)
"""Every code of nvml.h."""


class Fault(enum.IntEnum):
    """What a call does instead of its work."""

    NONE = 0
    CODE = 1
    HANG = 2
    CRASH = 3
    GARBAGE = 4
    SLOW = 5
    LOSE_GPU = 6


@dataclass(frozen=True)
class Call:
    """One function of the library.

    Parameters
    ----------
    symbol : str
        Its name in the library.
    call : str
        How zeta's child calls it.
    signature : str
        Its parameters in C.
    body : str
        Its work in C; ``gpu`` is the device, ``g`` its number.
    outputs : tuple of str
        Expressions of pointer and size that garbage is written to.
    device : str
        The parameter that is the device; empty where there is none.
    garbage_code : str
        What it returns with garbage.
    """

    symbol: str
    call: str
    signature: str
    body: str
    outputs: tuple[tuple[str, str], ...] = ()
    device: str = "device"
    garbage_code: str = "0"


def _number(symbol: str, call: str, kind: str, value: str, before: str = "") -> Call:
    return Call(symbol, call, f"void* device, {before}{kind}* out", f"*out = {value};", (("out", "sizeof *out"),))


_PROCESS = "struct { unsigned pid; unsigned long long used; unsigned instance, compute; }"
_PROCESSES = f"""
  {_PROCESS}* list = infos;
  unsigned room = *count;
  *count = 2;
  if (!list || room < 2) return 7;
  list[0].pid = 1000 + g; list[0].used = (g + 1ull) << 28; list[0].instance = list[0].compute = ~0u;
  list[1].pid = 2000 + g; list[1].used = ~0ull; list[1].instance = list[1].compute = ~0u;
"""
_STRING = (("text", "size"),)

CALLS: tuple[Call, ...] = (
    Call("nvmlInitWithFlags", "init", "unsigned flags", "(void)flags;", device=""),
    Call(
        "nvmlSystemGetDriverVersion",
        "driver",
        "char* text, unsigned size",
        'snprintf(text, size, "570.86.15");',
        _STRING,
        "",
    ),
    Call("nvmlDeviceGetCount_v2", "count", "unsigned* out", "*out = listed();", (("out", "sizeof *out"),), ""),
    Call(
        "nvmlDeviceGetHandleByIndex_v2",
        "by_index",
        "unsigned device, void** out",
        "if (device >= listed()) return 2; *out = handle_of(device);",
        (("out", "sizeof *out"),),
        "handle_of(device)",
    ),
    Call(
        "nvmlDeviceGetHandleByUUID",
        "by_uuid",
        "const char* name, void** out",
        "*out = named(name); if (!*out) return 6;",
        (("out", "sizeof *out"),),
        "named(name)",
    ),
    Call(
        "nvmlDeviceGetUUID", "uuid", "void* device, char* text, unsigned size", "name_of(device, text, size);", _STRING
    ),
    Call(
        "nvmlDeviceGetName",
        "name",
        "void* device, char* text, unsigned size",
        'snprintf(text, size, "NVIDIA Fake %d", g);',
        _STRING,
    ),
    Call(
        "nvmlDeviceGetPciInfo_v3",
        "pci",
        "void* device, struct pci* out",
        'memset(out, 0, sizeof *out); out->bus = 16 + g; snprintf(out->id, 32, "00000000:%02X:00.0", 16 + g);',
        (("out", "sizeof *out"),),
    ),
    Call(
        "nvmlDeviceGetMigMode",
        "mig_mode",
        "void* device, unsigned* now, unsigned* later",
        "*now = *later = control->gpus[g].is_partitioned;",
        (("now", "sizeof *now"), ("later", "sizeof *later")),
    ),
    _number("nvmlDeviceGetMaxMigDeviceCount", "mig_count", "unsigned", "7"),
    Call(
        "nvmlDeviceGetMigDeviceHandleByIndex",
        "mig_device",
        "void* device, unsigned index, void** out",
        f"if (index >= {PARTS}) return 6; *out = part_of(device, index);",
        (("out", "sizeof *out"),),
    ),
    Call(
        "nvmlDeviceGetUtilizationRates",
        "utilisation",
        "void* device, unsigned* out",
        "if (is_part(device) || control->gpus[g].is_partitioned) return 3; out[0] = 10 * g + 1; out[1] = 10 * g + 2;",
        (("out", "8"),),
    ),
    Call(
        "nvmlDeviceGetMemoryInfo",
        "memory",
        "void* device, unsigned long long* out",
        "unsigned long long scale = is_part(device) ? 1ull << 29 : 1ull << 30; out[0] = 80 * scale; "
        "out[2] = (g + 1) * scale; out[1] = out[0] - out[2];",
        (("out", "24"),),
    ),
    _number("nvmlDeviceGetPowerUsage", "power", "unsigned", "50000 * (g + 1)"),
    _number("nvmlDeviceGetEnforcedPowerLimit", "power_limit", "unsigned", "700000 + 1000 * g"),
    _number("nvmlDeviceGetTotalEnergyConsumption", "energy", "unsigned long long", "1000000ull * (g + 1)"),
    Call(
        "nvmlDeviceGetClockInfo",
        "sm_clock",
        "void* device, int which, unsigned* out",
        "*out = which == 2 ? 2600 + g : 1500 + g;",
        (("out", "sizeof *out"),),
    ),
    Call(
        "nvmlDeviceGetMaxClockInfo",
        "sm_clock_max",
        "void* device, int which, unsigned* out",
        "(void)which; *out = 1980 + g;",
        (("out", "sizeof *out"),),
    ),
    Call(
        "nvmlDeviceGetTemperatureV",
        "temperature",
        "void* device, struct temperature* out",
        "out->degrees = 40 + g;",
        (("out", "sizeof *out"),),
    ),
    Call(
        "nvmlDeviceGetTemperature",
        "temperature",
        "void* device, int sensor, unsigned* out",
        "(void)sensor; *out = 40 + g;",
        (("out", "sizeof *out"),),
    ),
    _number("nvmlDeviceGetCurrentClocksEventReasons", "throttle_reasons", "unsigned long long", "1ull << g"),
    _number("nvmlDeviceGetCurrentClocksThrottleReasons", "throttle_reasons", "unsigned long long", "1ull << g"),
    Call(
        "nvmlDeviceGetComputeRunningProcesses_v3",
        "processes",
        "void* device, unsigned* count, void* infos",
        _PROCESSES,
        (("count", "sizeof *count"),),
        garbage_code="infos ? 0 : 7",
    ),
    Call(
        "nvmlDeviceGetComputeRunningProcesses_v2",
        "processes",
        "void* device, unsigned* count, void* infos",
        _PROCESSES,
        (("count", "sizeof *count"),),
        garbage_code="infos ? 0 : 7",
    ),
)
"""Every function of the library that zeta may come to call."""

_PREAMBLE = f"""
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct fault {{ int kind, value, gpu; unsigned made; }};
struct gpu {{ int is_present, is_partitioned, reserved[2]; }};
struct control {{ struct fault faults[64]; struct gpu gpus[{MAX_GPUS}]; }};
struct pci {{ char old_id[16]; unsigned domain, bus, device, pci_id, subsystem; char id[32]; }};
struct temperature {{ unsigned version; int sensor, degrees; }};
static volatile struct control* control;

__attribute__((constructor)) static void open_control(void) {{
  int fd = open(getenv("FAKE_NVML_CONTROL"), O_RDWR | O_CLOEXEC);
  control = mmap(0, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
}}

static unsigned listed(void) {{
  unsigned count = 0;
  for (int g = 0; g < {MAX_GPUS}; ++g) count += control->gpus[g].is_present;
  return count;
}}
/* A handle is 1 + the position in the list of those present; of a part: 256 + 16 * position + its number. */
static void* handle_of(unsigned position) {{ return (void*)(1ul + position); }}
static void* part_of(void* gpu, unsigned n) {{ return (void*)(256 + 16 * ((unsigned long)gpu - 1) + n); }}
static int is_part(void* device) {{ return (unsigned long)device >= 256; }}
static int gpu_of(void* device) {{
  unsigned long position = is_part(device) ? ((unsigned long)device - 256) / 16 : (unsigned long)device - 1;
  for (int g = 0; g < {MAX_GPUS}; ++g)
    if (control->gpus[g].is_present && position-- == 0) return g;
  return -1;
}}
static void name_of(void* device, char* text, unsigned size) {{
  int g = gpu_of(device);
  if (is_part(device)) snprintf(text, size, "MIG-0000000%d-000%d-fake", g, (int)((unsigned long)device % 16));
  else snprintf(text, size, "GPU-0000000%d-fake", g);
}}
static void* named(const char* name) {{
  char text[96];
  for (unsigned at = 0; at < listed(); ++at) {{
    name_of(handle_of(at), text, sizeof text);
    if (!strcmp(text, name)) return handle_of(at);
    for (unsigned n = 0; n < {PARTS} && control->gpus[gpu_of(handle_of(at))].is_partitioned; ++n) {{
      name_of(part_of(handle_of(at), n), text, sizeof text);
      if (!strcmp(text, name)) return part_of(handle_of(at), n);
    }}
  }}
  return 0;
}}
const char* nvmlErrorString(int code) {{ (void)code; abort(); /* not even the text of an error is asked for */ }}

enum {{ kPass = -1, kGarbage = -2 }};
static int meet(int id, int g) {{
  volatile struct fault* fault = &control->faults[id];
  ++fault->made;
  if (!fault->kind || (fault->gpu >= 0 && fault->gpu != g)) return kPass;
  switch (fault->kind) {{
    case {Fault.CODE}: return fault->value;
    case {Fault.HANG}: for (;;) pause();
    case {Fault.CRASH}: *(volatile int*)0 = 1; return 0;
    case {Fault.GARBAGE}: return kGarbage;
    case {Fault.SLOW}: usleep(fault->value * 1000u); return kPass;
    case {Fault.LOSE_GPU}: control->gpus[fault->value].is_present = 0; return kPass;
  }}
  return kPass;
}}
"""


def _source() -> str:
    parts = [_PREAMBLE]
    for number, call in enumerate(CALLS):
        garbage = " ".join(f"memset({where}, control->faults[{number}].value, {size});" for where, size in call.outputs)
        present = "if (g < 0) return 15; " if call.device == "device" else ""
        parts.append(
            f"int {call.symbol}({call.signature}) {{\n"
            f"  int g = {f'gpu_of({call.device})' if call.device else '-1'}; (void)g;\n"
            f"  int met = meet({number}, g);\n"
            f"  if (met == kGarbage) {{ {garbage} return {call.garbage_code}; }}\n"
            f"  if (met != kPass) return met;\n"
            f"  {present}{call.body}\n  return 0;\n}}\n"
        )
    return "\n".join(parts)


def build(folder: Path) -> Path:
    """Compiles the library into the folder and returns its path."""
    source, library = folder / "fake_nvml.c", folder / "libnvidia-ml.so.1"
    source.write_text(_source(), encoding="utf-8")
    command = ["gcc", "-D_GNU_SOURCE", "-O1", "-Wall", "-Wextra", "-Werror", "-Wno-misleading-indentation"]
    subprocess.run([*command, "-shared", "-fPIC", "-o", str(library), str(source)], check=True, timeout=120)
    return library


_FAULT = struct.Struct("iiiI")
_GPU = struct.Struct("iiii")
_GPUS_AT = 64 * _FAULT.size


class FakeLibrary:
    """One copy of the library with its own control file.

    Parameters
    ----------
    library : Path
        What `build` made.
    folder : Path
        An empty folder for the copy.
    gpus : int
        GPUs present at first.
    lacking : tuple of str
        Symbols that this copy does not export.
    """

    def __init__(self, library: Path, folder: Path, gpus: int = 3, lacking: tuple[str, ...] = ()) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        code = library.read_bytes()
        for symbol in lacking:
            name = b"\0" + symbol.encode() + b"\0"
            assert code.count(name) >= 1, f"the library has no symbol {symbol}"
            code = code.replace(name, name.replace(b"\0nvml", b"\0none"))
        self.folder = folder
        (folder / library.name).write_bytes(code)
        control = folder / "control"
        control.write_bytes(b"\0" * 4096)
        with control.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 4096)
        self.environment = {**os.environ, "LD_LIBRARY_PATH": str(folder), "FAKE_NVML_CONTROL": str(control)}
        for gpu in range(gpus):
            self.set_gpu(gpu)

    def set_gpu(self, gpu: int, is_present: bool = True, is_partitioned: bool = False) -> None:
        """Plugs a GPU in or out, or switches MIG."""
        _GPU.pack_into(self._map, _GPUS_AT + gpu * _GPU.size, is_present, is_partitioned, 0, 0)

    def set_fault(self, symbol: str, kind: Fault, value: int = 0, gpu: int = -1) -> None:
        """From now on the call fails like this, for one GPU or for all."""
        struct.pack_into("iii", self._map, self._at(symbol), kind, value, gpu)

    @contextmanager
    def fault(self, symbol: str, kind: Fault, value: int = 0, gpu: int = -1) -> Iterator[None]:
        """The call fails like this for a while."""
        self.set_fault(symbol, kind, value, gpu)
        try:
            yield
        finally:
            self.set_fault(symbol, Fault.NONE)

    def clear(self) -> None:
        """Nothing fails any more."""
        for call in CALLS:
            self.set_fault(call.symbol, Fault.NONE)

    def made(self, symbol: str) -> int:
        """How often the function was called."""
        return int(_FAULT.unpack_from(self._map, self._at(symbol))[3])

    @staticmethod
    def uuid(gpu: int) -> str:
        """Of the GPU."""
        return f"GPU-0000000{gpu}-fake"

    @staticmethod
    def part(gpu: int, number: int) -> str:
        """UUID of a MIG device."""
        return f"MIG-0000000{gpu}-000{number}-fake"

    @staticmethod
    def true_row(gpu: int) -> dict[str, float]:
        """What a correct reading of the GPU says. Every value tells which GPU it is of."""
        return {
            "utilisation": (10 * gpu + 1) / 100,
            "memory_utilisation": (10 * gpu + 2) / 100,
            "memory_used_bytes": (gpu + 1) * GIB,
            "memory_total_bytes": 80 * GIB,
            "power_w": 50.0 * (gpu + 1),
            "power_limit_w": 700.0 + gpu,
            "energy_j": 1000.0 * (gpu + 1),
            "sm_clock_mhz": 1500 + gpu,
            "sm_clock_max_mhz": 1980 + gpu,
            "memory_clock_mhz": 2600 + gpu,
            "temperature_c": 40 + gpu,
            "throttle_reasons": 1 << gpu,
            "process_count": 2,
        }

    @staticmethod
    def _at(symbol: str) -> int:
        return next(at for at, call in enumerate(CALLS) if call.symbol == symbol) * _FAULT.size
