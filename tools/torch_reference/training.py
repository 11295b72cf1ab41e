"""The two training dynamics, their randomness given. B batch, S grid tokens, K demos, P context tokens."""

import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, get_total_norm

from tools.torch_reference.decoder import Decoder, Latents, Output
from tools.torch_reference.encoders import Context, Encoder
from tools.torch_reference.losses import Loss, act_loss
from tools.torch_reference.optim import AdamATan2, RowSignSGD

# inputs (B, S), labels (B, S), demo_inputs (B, K, S), demo_labels (B, K, S), demo_mask (B, K)
Batch = dict[str, Tensor]


class ETRM(nn.Module):
    """Encoder and decoder under the names they have in a checkpoint."""

    def __init__(self, encoder: Encoder, decoder: Decoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.inner = decoder

    def encode(self, data: Batch, eps: Tensor | None = None) -> Context:
        return self.encoder(data["demo_inputs"], data["demo_labels"], data["demo_mask"], eps)


class TRM(nn.Module):
    """The model without encoder: `table` trains the decoder's puzzle embeddings, in the place of encoded demos."""

    def __init__(self, decoder: Decoder, table: RowSignSGD) -> None:
        super().__init__()
        self.inner = decoder
        self.encoder = nn.Module()  # without parameters
        self.table = table

    def encode(self, data: Batch, eps: None = None) -> Context:
        rows = self.table.look_up(data["puzzle_identifiers"])
        return Context(self.inner.pad(rows), None)


@dataclasses.dataclass
class Trainer:
    """A model with its optimiser and the hyper-parameters of an update."""

    model: ETRM | TRM
    optimizer: AdamATan2
    grad_clip_norm: float = 1.0
    kl_weight: float = 0.0
    token_loss: str = "stablemax"


@dataclasses.dataclass
class Carry:
    """What lives on from one step of the original dynamics to the next."""

    data: Batch
    latents: Latents
    context: Tensor  # (B, P, D), read by encode="once" only
    steps: Tensor  # (B,) ACT steps its row has taken
    halted: Tensor  # (B,) its row makes room for the next batch's


@dataclasses.dataclass
class Record:
    """What one update computed. Norms are those of the gradient of the batch mean, before clipping."""

    data: Batch  # the rows it worked on
    context: Tensor  # (B, P, D) of all rows
    encoded: Context | None  # of the rows encoded in this very step; None if there was none
    output: Output
    loss: Loss
    grad_norm: Tensor
    encoder_grad_norm: Tensor
    decoder_grad_norm: Tensor


def update(
    trainer: Trainer, data: Batch, context: Tensor, encoded: Context | None, latents: Latents
) -> Record:
    """One ACT step behind the context (B, P, D), its loss, and one optimiser update."""
    model = trainer.model
    output = model.inner(context, data["inputs"], latents)
    loss = act_loss(
        output.logits,
        output.q_halt,
        data["labels"],
        kl=None if encoded is None else encoded.kl,
        kl_weight=trainer.kl_weight,
        token_loss=trainer.token_loss,
    )
    trainer.optimizer.zero_grad()
    (loss.total / len(context)).backward()
    encoder_norm, decoder_norm = (
        get_total_norm([p.grad for p in part.parameters() if p.grad is not None])
        for part in (model.encoder, model.inner)
    )
    norm = clip_grad_norm_(model.parameters(), trainer.grad_clip_norm)
    trainer.optimizer.step()
    if isinstance(model, TRM):
        model.table.step()
    return Record(data, context, encoded, output, loss, norm, encoder_norm, decoder_norm)


def online_batch(
    trainer: Trainer, batch: Batch, num_act_steps: int, eps: Tensor | None = None
) -> Iterator[Record]:
    """Fresh latents, then `num_act_steps` updates on the same batch, encoding its demos anew before each.

    eps: noise of a variational encoder with the ACT step as its leading axis.
    """
    latents = trainer.model.inner.initial_latents(len(batch["inputs"]))
    for step in range(num_act_steps):
        encoded = trainer.model.encode(batch, None if eps is None else eps[step])
        record = update(trainer, batch, encoded.tokens, encoded, latents)
        latents = record.output.latents
        yield record


def empty_carry(model: ETRM, batch: Batch) -> Carry:
    """The carry before the first step: every row is halted, so that `batch` gives nothing but shapes."""
    batch_size = len(batch["inputs"])
    latents = model.inner.initial_latents(batch_size)
    return Carry(
        data={name: torch.zeros_like(values) for name, values in batch.items()},
        latents=latents,
        context=torch.zeros_like(latents.z_H[:, : model.inner.num_context]),
        steps=torch.zeros(batch_size, dtype=torch.int32),
        halted=torch.ones(batch_size, dtype=torch.bool),
    )


def refill(model: ETRM, carry: Carry, batch: Batch) -> Carry:
    """Rows that halted take the batch's row and start afresh; the others stay as they are."""

    def replace(old: Tensor, new: Tensor) -> Tensor:
        return torch.where(carry.halted.view(-1, *[1] * (old.ndim - 1)), new, old)

    return dataclasses.replace(
        carry,
        data={name: replace(old, batch[name]) for name, old in carry.data.items()},
        latents=Latents(*map(replace, carry.latents, model.inner.initial_latents(len(carry.steps)))),
        steps=carry.steps.masked_fill(carry.halted, 0),
    )


def encode_fresh(model: ETRM, carry: Carry, eps: Tensor | None) -> tuple[Context | None, Tensor]:
    """Encode the rows that have just started; in the context (B, P, D) the others keep the carry's tokens.

    Without any such row the encoder takes no part in the step, and its parameters get no gradient at all.
    With one, the PyTorch project encodes every row but keeps these tokens alone.
    """
    fresh = carry.halted
    if not fresh.any():
        return None, carry.context
    rows = {name: values[fresh] for name, values in carry.data.items()}
    encoded = model.encode(rows, None if eps is None else eps[fresh])
    return encoded, carry.context.index_put((fresh,), encoded.tokens)


def original_step(
    trainer: Trainer,
    carry: Carry,
    batch: Batch,
    *,
    encode: str,
    halt_max_steps: int,
    halt_exploration_prob: float,
    explore_uniform: Tensor,
    explore_min_steps: Tensor,
    eps: Tensor | None = None,
) -> tuple[Carry, Record]:
    """One step of the original dynamics.

    Args:
        encode: `once`, when a row starts, or `every_step`.
        explore_uniform: (B,) uniform draws; a row explores where its draw is below the probability.
        explore_min_steps: (B,) draws from 2 … halt_max_steps: the steps that an exploring row has to take.
        eps: noise of a variational encoder for all B rows.
    """
    carry = refill(trainer.model, carry, batch)
    if encode == "once":
        encoded, context = encode_fresh(trainer.model, carry, eps)
    elif encode == "every_step":
        encoded = trainer.model.encode(carry.data, eps)
        context = encoded.tokens
    else:
        raise ValueError(f"encode must be once or every_step, not {encode!r}")
    record = update(trainer, carry.data, context, encoded, carry.latents)
    steps = carry.steps + 1
    halted = (steps >= halt_max_steps) | (record.output.q_halt > 0)
    halted &= (explore_uniform >= halt_exploration_prob) | (steps >= explore_min_steps)
    return Carry(carry.data, record.output.latents, context.detach(), steps, halted), record


@torch.no_grad()
def evaluate(model: ETRM, batch: Batch, num_steps: int) -> Iterator[Output]:
    """Every ACT step's output on a batch, from fresh latents, with the encoder's mean context."""
    tokens = model.encode(batch).tokens
    latents = model.inner.initial_latents(len(batch["inputs"]))
    for _ in range(num_steps):
        output = model.inner(tokens, batch["inputs"], latents)
        latents = output.latents
        yield output
