"""``python spin.py SECONDS`` keeps the first GPU busy by the driver alone: no CUDA toolkit, no torch."""

from __future__ import annotations

import ctypes
import sys
import time

# Loops until the GPU's own clock has advanced by the argument.
PTX = b"""
.version 6.3
.target sm_70
.address_size 64
.visible .entry spin(.param .u64 ticks)
{
  .reg .pred %p<2>;
  .reg .b64 %rd<5>;
  ld.param.u64 %rd1, [ticks];
  mov.u64 %rd2, %clock64;
LOOP:
  mov.u64 %rd3, %clock64;
  sub.s64 %rd4, %rd3, %rd2;
  setp.lt.u64 %p1, %rd4, %rd1;
  @%p1 bra LOOP;
  ret;
}
\0"""
TICKS = 300_000_000  # some tenths of a second
MEMORY_BYTES = 256 << 20


def main() -> None:
    """Says ``spinning`` once the GPU is at work."""
    cuda = ctypes.CDLL("libcuda.so.1")

    def call(name: str, *args: object) -> None:
        code = getattr(cuda, name)(*args)
        if code != 0:
            raise SystemExit(f"{name} returns {code}")

    device, context = ctypes.c_int(), ctypes.c_void_p()
    module, function, memory = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_uint64()
    call("cuInit", 0)
    call("cuDeviceGet", ctypes.byref(device), 0)
    call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
    call("cuCtxSetCurrent", context)
    call("cuMemAlloc_v2", ctypes.byref(memory), ctypes.c_size_t(MEMORY_BYTES))
    call("cuModuleLoadData", ctypes.byref(module), PTX)
    call("cuModuleGetFunction", ctypes.byref(function), module, b"spin")
    ticks = ctypes.c_uint64(TICKS)
    arguments = (ctypes.c_void_p * 1)(ctypes.cast(ctypes.byref(ticks), ctypes.c_void_p))
    until = time.monotonic() + float(sys.argv[1])
    is_told = False
    while time.monotonic() < until:
        # One thread in one block: the device counts as busy, and stays usable for others.
        call("cuLaunchKernel", function, 1, 1, 1, 1, 1, 1, 0, None, arguments, None)
        if not is_told:
            sys.stdout.write("spinning\n")
            sys.stdout.flush()
            is_told = True
        call("cuCtxSynchronize")


if __name__ == "__main__":
    main()
