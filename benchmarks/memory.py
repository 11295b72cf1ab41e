"""The most memory that something takes while it runs."""

import ctypes
import re
from collections.abc import Callable
from pathlib import Path

_PROCESS = Path("/proc/self")


def peak_gb(run: Callable[[], object]) -> float | None:
    """What this process holds at most during a call besides what it held before, 10⁹ bytes; None where Linux is not.

    Freed memory that the C library keeps for later is given back first, so that it does not count as held before.
    """
    try:
        ctypes.CDLL(None).malloc_trim(0)
        (_PROCESS / "clear_refs").write_text("5")  # the high-water mark starts anew
    except (OSError, AttributeError):
        return None
    before = _kilobytes("VmRSS")
    run()
    return max(_kilobytes("VmHWM") - before, 0) * 1024 / 1e9


def _kilobytes(field: str) -> int:
    found = re.search(rf"^{field}:\s*(\d+) kB$", (_PROCESS / "status").read_text(), re.MULTILINE)
    return int(found[1]) if found else 0
