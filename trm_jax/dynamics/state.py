"""Everything that a restart needs, as one pytree of arrays."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from trm_jax.dynamics.act import Batch, Carry, empty_carry
from trm_jax.dynamics.optim import AdamATan2State, Optimiser
from trm_jax.models.etrm import ETRM, split

Tree = dict[str, Any]
RowFunction = Callable[..., tuple[Any, Any, Any]]  # f(everywhere, *rows) → (sums over rows, shown rows, own rows)
RowSums = Callable[[RowFunction], RowFunction]  # runs it on all rows, wherever they lie: see run/mesh


class TrainState(struct.PyTreeNode):
    """State of a training run.

    Attributes:
        step: int32, batches finished.
        samples: int32, rows that have started; in the original dynamics a row takes several batches.
        key: raw PRNG key data; every draw folds the step into it.
        params, buffers: nested dicts, {"encoder": …, "decoder": …}; an embedding table is a buffer, the only one
            that training changes.
        ema: moving average of `params`, None where the run keeps none.
        opt: optimiser state.
        carry: rows being solved (original dynamics), None in online mode.
    """

    step: jax.Array
    samples: jax.Array
    key: jax.Array
    params: Tree
    buffers: Tree
    ema: Tree | None
    opt: AdamATan2State
    carry: Carry | None

    @property
    def eval_params(self) -> Tree:
        """The parameters that evaluation uses: the moving average where there is one."""
        return self.params if self.ema is None else self.ema


def initial_state(model: ETRM, optimiser: Optimiser, key: jax.Array, batch: Batch | None) -> TrainState:
    """State before the first batch.

    Args:
        key: of every draw to come; none that the model's parameters were drawn from.
        batch: a global batch (arrays or shapes) for the carry of the original dynamics; None in online mode.
    """
    _, params, buffers = split(model)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        samples=jnp.zeros((), jnp.int32),
        key=jax.random.key_data(key),
        params=params,
        buffers=buffers,
        ema=jax.tree.map(jnp.copy, params) if optimiser.config.ema else None,
        opt=optimiser.init(params),
        carry=None if batch is None else empty_carry(model.decoder, batch),
    )


def parameter_counts(params: Tree) -> dict[str, int]:
    """Trained parameters of the encoder, the decoder, and both."""
    counts = {part: sum(leaf.size for leaf in jax.tree.leaves(params.get(part))) for part in ("encoder", "decoder")}
    return counts | {"total": sum(counts.values())}
