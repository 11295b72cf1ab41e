"""Modules with random weights that NumPy draws: an initialiser is many small programs to compile."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from trm_jax.models.etrm import split


def filled(make: Callable[[], nnx.Module], scale: float = 1.0) -> nnx.Module:
    """The module that `make` makes, with weights of σ = scale/√(length of the first axis), that of the inputs."""
    graph, *trees = split(nnx.eval_shape(make))
    rng = np.random.default_rng(0)
    return nnx.merge(graph, *jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(0, scale / leaf.shape[0]**0.5, leaf.shape), leaf.dtype), trees))
