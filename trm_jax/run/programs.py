"""The compiled programs of an evaluation, with their shardings written out."""

import functools

import jax
from flax import nnx

from trm_jax.dynamics.inference import Measure, Predict, encoder_statistics, predict
from trm_jax.run.mesh import Mesh, by_rows, per_shard, replicated


def compiled(mesh: Mesh, graph: nnx.GraphDef, halt: str, loss_type: str) -> Predict:
    """`predict` under jit: rows split over the mesh, parameters and buffers on every device."""
    rows, everywhere = by_rows(mesh), replicated(mesh)
    return jax.jit(functools.partial(predict, graph, halt, loss_type, per_shard(mesh)),
                   in_shardings=(everywhere, everywhere, rows, rows), out_shardings=(rows, rows))


def compiled_measure(mesh: Mesh, graph: nnx.GraphDef) -> Measure:
    """`encoder_statistics` under jit: rows split over the mesh, everything else on every device."""
    rows, everywhere = by_rows(mesh), replicated(mesh)
    return jax.jit(functools.partial(encoder_statistics, graph, per_shard(mesh)), static_argnums=4,
                   in_shardings=(everywhere, everywhere, rows, rows), out_shardings=everywhere)
