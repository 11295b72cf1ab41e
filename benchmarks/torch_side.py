"""Updates of the PyTorch reference in tools/torch_reference, as the PyTorch project trains: every slot is encoded.

So that it is a fair opponent, self-attention is `scaled_dot_product_attention`, half precision is autocast, and
`torch.compile` is offered. What an update does is what ours does: refill, ACT step, losses, metrics, norms of the
gradient, clipping, AdamATan2, moving average.
"""

import contextlib
import time

import jax
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.workload import groups
from tools import torch_reference as reference
from tools.torch_names import to_torch
from tools.torch_reference import layers, training
from trm_jax.dynamics.act import Batch
from trm_jax.dynamics.optim import learning_rate
from trm_jax.dynamics.state import Tree
from trm_jax.models.encoders import ENCODERS
from trm_jax.run.settings import Settings

_plain_attention = layers.attend


def _fused_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    if mask is not None:  # a handful of demonstrations
        return _plain_attention(q, k, v, mask)
    heads = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)


layers.attend = _fused_attention  # of SelfAttention, in decoder and encoders


class TorchSide:
    """Model, optimiser and carry.

    Args:
        weights: parameters and buffers of trm_jax to start from.
        compiled: under torch.compile.
        every_row: with encode="once", encode all rows as soon as one starts, as the PyTorch project does; else only
            those that start.
    """

    def __init__(self, settings: Settings, weights: tuple[Tree, Tree], batches: list[Batch], *, compiled: bool,
                 every_row: bool):
        self.device = place()
        self.settings, self.every_row = settings, every_row
        self.name = f"PyTorch{', torch.compile' if compiled else ''}"
        self.model = self.build(settings)
        self.load(state_dict(weights))
        optim = settings.optim
        self.optimizer = reference.AdamATan2(self.model.parameters(), optim.lr, (optim.beta1, optim.beta2),
                                             optim.weight_decay)
        self.schedule = learning_rate(optim, settings.steps(settings.train.epochs, groups(settings)))
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.average = [p.detach().clone() for p in self.parameters] if optim.ema else []
        self.batches = [tensors(batch) for batch in batches]
        self.carry = self.start(self.batches[0])
        self.compile_seconds = None if compiled else 0.0
        self._act_step = torch.compile(self.act_step) if compiled else self.act_step
        self.updates, self.memory_gb = 0, None

    # The model; a checkout of the original has its own.

    def build(self, settings: Settings) -> torch.nn.Module:
        return reference_model(settings)

    def load(self, state: dict[str, Tensor]) -> None:
        self.model.load_state_dict(state, strict=True)

    def start(self, batch: reference.Batch) -> object:
        """What rows carry before the first update, all of them halted."""
        return training.empty_carry(self.model, batch)

    def act_step(self, carry: reference.Carry, encoding: bool) -> tuple[Tensor, reference.Carry]:
        """Mean loss of one ACT step on the carry's rows, and the carry behind it."""
        data, fresh, context, eps = carry.data, carry.halted, carry.context, self.noise(carry)
        encoded = None
        if encoding and (self.every_row or self.settings.mode.encode == "every_step"):
            encoded = self.model.encode(data, eps)
            once = self.settings.mode.encode == "once"
            context = torch.where(fresh[:, None, None], encoded.tokens, context) if once else encoded.tokens
        elif encoding:
            encoded, context = training.encode_fresh(self.model, carry, eps)
        output = self.model.inner(context, data["inputs"], carry.latents)
        loss = reference.act_loss(output.logits, output.q_halt, data["labels"],
                                  kl=None if encoded is None else encoded.kl,
                                  kl_weight=self.settings.loss.kl_weight * len(fresh),
                                  token_loss=self.settings.loss.type)
        with torch.no_grad():
            reference.act_metrics(output.logits, output.q_halt, data["labels"], fresh)
        carry = training.Carry(data, output.latents, context.detach(), carry.steps + 1, fresh)
        return loss.total / len(fresh), carry

    def noise(self, carry: reference.Carry) -> Tensor | None:
        """What a variational encoder draws for the rows."""
        parts, (rows, slots) = ENCODERS[self.settings.encoder.type], carry.data["demo_mask"].shape
        shape = {"demo": (rows, slots), "task": (rows,)}.get(parts.latent)
        return None if shape is None else torch.randn(*shape, self.settings.arch.hidden_size)

    def refill(self, starting: Tensor, batch: reference.Batch) -> None:
        """The rows that start take the batch's."""
        self.carry.halted = starting
        self.carry = training.refill(self.model, self.carry, batch)

    # The update.

    def update(self, number: int, starting: np.ndarray) -> tuple[float, float]:
        """Update `number`, in which the rows that are `starting` (B,) take the batch's; seconds, and the mean loss."""
        online = self.settings.mode.name == "online"
        steps = self.settings.mode.num_act_steps if online else 1
        halted = torch.ones(len(starting), dtype=torch.bool) if online else torch.from_numpy(starting).to(self.device)
        encoding = online or self.settings.mode.encode == "every_step" or bool(starting.any())
        self._synchronise()
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        before, start = self._allocated(), time.perf_counter()
        self.refill(halted, self.batches[number % len(self.batches)])
        losses = [self._learn(encoding) for _ in range(steps)]
        if self.average:
            torch._foreach_lerp_(self.average, [p.detach() for p in self.parameters], 1 - self.settings.optim.ema_rate)
        self.updates += 1
        self._synchronise()
        seconds = time.perf_counter() - start
        if self.device == "cuda":
            self.memory_gb = (torch.cuda.max_memory_allocated() - before) / 1e9
        return seconds, float(torch.stack(losses).mean())

    def _learn(self, encoding: bool) -> Tensor:
        self.optimizer.lr = float(self.schedule(self.updates + 1))
        self.optimizer.zero_grad()
        with self.precision():
            loss, self.carry = self._act_step(self.carry, encoding)
        loss.backward()
        for part in ("encoder.", "inner."):  # what a run logs of the gradient
            torch.nn.utils.get_total_norm([p.grad for name, p in self.model.named_parameters()
                                           if part in name and p.grad is not None])
        torch.nn.utils.clip_grad_norm_(self.parameters, self.settings.optim.grad_clip_norm)
        self.optimizer.step()
        return loss.detach()

    def precision(self) -> contextlib.AbstractContextManager:
        return precision(self.settings)

    def _allocated(self) -> int:
        return torch.cuda.memory_allocated() if self.device == "cuda" else 0

    def _synchronise(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()


def tensors(batch: Batch) -> reference.Batch:
    """A batch under the names that the PyTorch project gives it, where PyTorch computes."""
    arrays = {"inputs": batch.inputs, "labels": batch.labels, "demo_inputs": batch.demos[:, :, 0],
              "demo_labels": batch.demos[:, :, 1], "demo_mask": batch.demo_mask, "puzzle_identifiers": batch.task}
    return {name: torch.from_numpy(np.ascontiguousarray(array)).to(place()) for name, array in arrays.items()}


def place() -> str:
    """The kind of device that JAX uses too; whatever PyTorch makes from now on is made there."""
    device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    if device == "cuda":
        torch.set_default_device(device)  # the reference makes its angles and its first carry there
    return device


def precision(settings: Settings) -> contextlib.AbstractContextManager:
    """In which matrix products are in the type of the activations."""
    half = settings.arch.dtype.name == "bfloat16"
    return torch.autocast(place(), torch.bfloat16) if half else contextlib.nullcontext()


def state_dict(weights: tuple[Tree, Tree]) -> dict[str, Tensor]:
    """PyTorch's names and tensors of our parameters and buffers."""
    return {name: torch.from_numpy(np.array(array)).to(place()) for name, array in to_torch(*weights).items()}


def loaded_reference(settings: Settings, weights: tuple[Tree, Tree]) -> reference.ETRM:
    """The reference's model with our weights."""
    place()
    model = reference_model(settings)
    model.load_state_dict(state_dict(weights), strict=True)
    return model


def reference_model(settings: Settings) -> reference.ETRM:
    """The reference's model of the sizes that `settings` name, with whatever weights it starts with."""
    arch, encoder = settings.arch, settings.encoder
    sizes = {"hidden_size": arch.hidden_size, "num_heads": arch.num_heads, "expansion": arch.expansion}
    decoder = reference.Decoder(**sizes, seq_len=settings.seq_len, puzzle_emb_len=arch.puzzle_emb_len,
                                L_layers=arch.L_layers, H_cycles=arch.H_cycles, L_cycles=arch.L_cycles,
                                pos_encodings=arch.pos_encodings, mlp_t=arch.mlp_t)
    return reference.ETRM(
        reference.make_encoder(encoder.type, **sizes, num_layers=encoder.num_layers, num_tokens=arch.puzzle_emb_len,
                               set_layers=encoder.set_layers, pooling_method=encoder.pooling_method,
                               norm_style=encoder.norm_style, layer_scale_init=encoder.layer_scale_init,
                               final_norm=encoder.final_norm), decoder)
