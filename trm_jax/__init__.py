"""trm_jax: encoder-based Tiny Recursive Models for ARC-AGI, trained with the original or the online dynamics."""

import sys

__version__ = "0.1.0"

if sys.argv[:1] == ["-m"]:  # python -m trm_jax.…, which has yet to import what takes seconds
    from trm_jax import terminal

    terminal.start()
