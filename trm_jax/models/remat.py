"""What the backward pass finds in memory, and what it computes again (gradient checkpointing, Chen et al. 2016).

none   everything that a gradient reads is kept.
dots   matrix products are kept, and of each attention its output and softmax statistics; the norms, the rotation and
       the gate between them are computed again.
full   only what enters is kept.

This is of a stack of the decoder. Chunks of demonstrations (encoders/packing.py) keep everything or nothing.
"""

from collections.abc import Callable
from typing import Any

import jax

from trm_jax.models.attention import KEPT

REMAT = ("none", "dots", "full")
_PRODUCTS = jax.checkpoint_policies.save_from_both_policies(
    jax.checkpoint_policies.dots_with_no_batch_dims_saveable,  # those with a batch axis are within an attention
    jax.checkpoint_policies.save_only_these_names(KEPT))
_FUSED = "dot_product_attention_fwd_wrapper"  # cuDNN's attention, whose statistics JAX gives no name


def remat(f: Callable[..., Any], how: str) -> Callable[..., Any]:
    """`f`, a pure function of arrays, with a gradient that keeps what `how` says."""
    if how == "none":
        return f
    return jax.checkpoint(f, policy=_products if how == "dots" else None)


def _products(primitive: Any, *shapes: Any, **params: Any) -> bool:
    return primitive.name == _FUSED or _PRODUCTS(primitive, *shapes, **params)
