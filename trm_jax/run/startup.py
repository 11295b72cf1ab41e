"""Start-up of JAX on this machine, before its first use: a device for each core, and programs that last."""

import math
import os
import platform
import zlib
from pathlib import Path

import jax

PROGRAMS = ".programs"  # folder beside the runs
MIN_COMPILE_SECONDS = 0.2  # of a program that is worth a file


def cpu_devices(*rows: int) -> int:
    """Devices that the cores of this process are shown as: the most that all these numbers of rows divide by.

    XLA computes element-wise operations of a device on one core, so that one device a core uses them all.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    shared = math.gcd(*rows)
    return max(devices for devices in range(1, cores + 1) if shared % devices == 0)


def use_cores(*rows: int) -> None:
    """Makes a CPU that many devices, unless JAX_NUM_CPU_DEVICES or a caller has said how many, or there are several
    processes, which have divided the cores among themselves. Other kinds of devices stay as they are."""
    if jax.config.values["jax_num_cpu_devices"] < 0 and not jax.distributed.is_initialized():
        jax.config.update("jax_num_cpu_devices", cpu_devices(*rows))


def keep_programs(root: Path) -> None:
    """Compiled programs are kept below `root`, unless JAX_COMPILATION_CACHE_DIR or a caller names another folder, or
    nothing may be written there: JAX would warn of each."""
    folder = root.resolve() / PROGRAMS / _processor()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if jax.config.values["jax_compilation_cache_dir"] is None and os.access(there, os.W_OK):
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", MIN_COMPILE_SECONDS)


def _processor() -> str:
    """Names the kind of processor: a program compiled for one may hold instructions that another has not."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = [platform.processor()]
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), lines[0] if lines else "")
    return f"{platform.machine()}-{zlib.crc32(flags.encode()):08x}"
