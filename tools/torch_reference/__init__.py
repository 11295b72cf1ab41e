"""An independent PyTorch model of what `trm_jax` computes: it judges the JAX code and converted checkpoints.

Written for clarity: dense, in plain float32, or in float64 after `.double()`. The keys of its state dicts are
those of the PyTorch project after the prefix `_orig_mod.model.`: `encoder.*` and `inner.*`. Weights are meant
to be loaded; those a model starts with follow no particular initialisation.
"""

from tools.torch_reference.decoder import Decoder, Latents, Output
from tools.torch_reference.encoders import Context, Encoder, make_encoder
from tools.torch_reference.losses import (
    Loss,
    act_loss,
    act_metrics,
    context_statistics,
    is_right,
    softmax_cross_entropy,
    stablemax_cross_entropy,
)
from tools.torch_reference.optim import AdamATan2, RowSignSGD
from tools.torch_reference.training import (
    ETRM,
    TRM,
    Batch,
    Carry,
    Record,
    Trainer,
    empty_carry,
    evaluate,
    online_batch,
    original_step,
)

__all__ = [
    "ETRM",
    "TRM",
    "AdamATan2",
    "Batch",
    "Carry",
    "Context",
    "Decoder",
    "Encoder",
    "Latents",
    "Loss",
    "Output",
    "Record",
    "RowSignSGD",
    "Trainer",
    "act_loss",
    "act_metrics",
    "context_statistics",
    "empty_carry",
    "evaluate",
    "is_right",
    "make_encoder",
    "online_batch",
    "original_step",
    "softmax_cross_entropy",
    "stablemax_cross_entropy",
]
