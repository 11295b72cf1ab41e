"""Updates of a checkout of the PyTorch project: its model and its loss as they are, the rest as in torch_side.py.

Known are checkouts whose `models.recursive_reasoning.etrm` trains the original dynamics and encodes at every step; what
they import (einops, pydantic) must be installed.
"""

import importlib
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.torch_side import TorchSide
from tools.torch_reference import Batch
from trm_jax.data.arc.grids import VOCAB_SIZE
from trm_jax.errors import ConfigError
from trm_jax.run.settings import Settings

MODEL, LOSSES = "models.recursive_reasoning.etrm", "models.losses"
DATA = ("inputs", "labels", "puzzle_identifiers", "demo_inputs", "demo_labels", "demo_mask")


def side_of(folder: str, settings: Settings) -> type[TorchSide]:
    """The side that the checkout in `folder` makes.

    Raises:
        ConfigError: it is none, needs a package that is missing, or has other dynamics than `settings`.
    """
    if (settings.mode.name, settings.mode.encode) != ("original", "every_step"):
        raise ConfigError("--etrm encodes at every step of the original dynamics: compare it with configs/r1.py, or "
                          "set --config.mode.encode=every_step")
    if settings.loss.type != "stablemax":
        raise ConfigError("--etrm trains with stablemax only: set --config.loss.type=stablemax")
    if not Path(folder, *MODEL.split(".")).with_suffix(".py").is_file():
        raise ConfigError(f"--etrm={folder} holds no checkout of the PyTorch project: {MODEL.replace('.', '/')}.py is "
                          "missing")
    sys.path.insert(0, str(Path(folder).resolve()))
    try:
        model, losses = importlib.import_module(MODEL), importlib.import_module(LOSSES)
    except ImportError as error:
        raise ConfigError(f"--etrm={folder} cannot be imported: {error}") from None
    if not hasattr(model, "TRMWithEncoder"):
        raise ConfigError(f"--etrm={folder} is of another time: {MODEL} has no TRMWithEncoder")

    class EtrmSide(TorchSide):
        """The loss head around the model, which keeps the carry, refills it and decides who halts."""

        def build(self, settings: Settings) -> torch.nn.Module:
            head = losses.ACTLossHead(model.TRMWithEncoder(sizes(settings)), f"{settings.loss.type}_cross_entropy",
                                      kl_weight=settings.loss.kl_weight * settings.data.global_batch_size)
            return head.to(self.device)

        def load(self, state: dict[str, Tensor]) -> None:
            self.model.model.load_state_dict(state, strict=True)

        def start(self, batch: Batch) -> Any:
            carry = self.model.initial_carry(batch)
            carry.current_data = {name: torch.zeros_like(values) for name, values in carry.current_data.items()}
            return carry

        def refill(self, starting: Tensor, batch: Batch) -> None:
            self.carry.halted = starting
            self.batch = {name: batch[name] for name in DATA}

        def act_step(self, carry: Any, encoding: bool) -> tuple[Tensor, Any]:
            carry, loss, *_ = self.model(return_keys=[], carry=carry, batch=self.batch)
            return loss / len(carry.halted), carry

        def precision(self) -> Any:
            return torch.autograd.set_grad_enabled(True)  # the checkout casts for itself

    return EtrmSide


def sizes(settings: Settings) -> dict[str, Any]:
    """The checkout's config of the same model."""
    arch, encoder = settings.arch, settings.encoder
    same = ("hidden_size", "num_heads", "expansion", "L_layers", "H_cycles", "L_cycles", "puzzle_emb_len",
            "pos_encodings", "mlp_t", "forward_dtype", "halt_max_steps", "halt_exploration_prob")
    of_encoder = ("type", "num_layers", "pooling_method", "set_layers", "norm_style", "layer_scale_init")
    return {
        "batch_size": settings.data.global_batch_size, "seq_len": settings.seq_len, "vocab_size": VOCAB_SIZE,
        **{name: getattr(arch, name) for name in same},
        **{f"encoder_{name}": getattr(encoder, name) for name in of_encoder},
    }
