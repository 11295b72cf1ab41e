"""How it is told: table, curves, pictures, and the page."""

import contextlib
import os
import sys


def _import_matplotlib() -> None:
    """Imports matplotlib also where MPLBACKEND names a backend that is not installed here, which it refuses.

    A notebook hands its own on to the commands that it starts. Pictures here are files and need none.
    """
    named = os.environ.pop("MPLBACKEND", None)
    import matplotlib

    if named is not None:
        os.environ["MPLBACKEND"] = named
        with contextlib.suppress(ValueError):
            matplotlib.rcParams["backend"] = named


if "matplotlib" not in sys.modules:
    _import_matplotlib()
