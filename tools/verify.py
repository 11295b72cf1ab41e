"""A converted decoder against the PyTorch reference: same tokens, carry and context, two ACT steps, in float32.

Shapes: B rows, S grid tokens, T context tokens, D hidden size.
"""

from collections.abc import Iterator, Mapping

import jax
import numpy as np
import torch
from flax import nnx

from tools import torch_reference as reference
from tools.torch_import import PUZZLE_EMBEDDINGS
from trm_jax.data.arc.grids import VOCAB_SIZE
from trm_jax.models.decoder import ArchConfig, Decoder, Latents
from trm_jax.models.etrm import split
from trm_jax.models.layers import parameter_keys
from trm_jax.run.pretrained import Manifest, Tree

LIMIT = 1e-4
ACT_STEPS = 2
ROWS = 2
USUAL_SEQ_LEN = 900  # of ARC, for a decoder whose shapes do not tell
OUTPUTS = ("logits", "q_halt", "q_continue", "z_H", "z_L")

Outputs = dict[str, np.ndarray]


def largest_differences(manifest: Manifest, params: Tree, buffers: Tree,
                        tensors: Mapping[str, torch.Tensor]) -> dict[str, float]:
    """Output → largest absolute difference over the ACT steps between ours and the PyTorch reference.

    Args:
        params, buffers: {"decoder": …}, converted.
        tensors: the state dict that they come from, keys without wrappers' prefixes.
    """
    S = manifest.seq_len or USUAL_SEQ_LEN
    T, D = manifest.arch["puzzle_emb_len"], manifest.arch["hidden_size"]
    draw = np.random.default_rng(0)
    tokens = draw.integers(0, VOCAB_SIZE, (ROWS, S), np.int32)
    # On the scale of token embeddings: a context of unit variance makes an untrained recursion chaotic.
    context = (draw.standard_normal((ROWS, T, D)) * D**-0.5).astype(np.float32)
    z = [draw.standard_normal((ROWS, T + S, D)).astype(np.float32) for _ in range(2)]

    ours = _ours(manifest, params["decoder"], buffers["decoder"], S, tokens, context, z)
    theirs = _theirs(manifest, tensors, S, tokens, context, z)
    worst = dict.fromkeys(OUTPUTS, 0.0)
    for step_ours, step_theirs in zip(ours, theirs, strict=True):
        for name in OUTPUTS:
            difference = np.abs(step_ours[name] - step_theirs[name]).max()
            worst[name] = max(worst[name], float(difference)) if np.isfinite(difference) else float("inf")
    return worst


def _ours(manifest: Manifest, params: Tree, buffers: Tree, S: int, tokens: np.ndarray, context: np.ndarray,
          z: list[np.ndarray]) -> Iterator[Outputs]:
    arch = ArchConfig(**manifest.arch, forward_dtype="float32", attention="xla", remat="none",
                      halt_max_steps=ACT_STEPS, halt_exploration_prob=0.0)
    graph, _, _ = split(nnx.eval_shape(lambda: Decoder(arch, S, parameter_keys(0))))
    step = jax.jit(lambda z: nnx.merge(graph, params, buffers)(z, tokens, context))
    latents = Latents(*map(jax.numpy.asarray, z))
    with jax.default_matmul_precision("highest"):
        for _ in range(ACT_STEPS):
            latents, logits, q = step(latents)
            outputs = (logits, q[:, 0], q[:, 1], latents.z_H, latents.z_L)
            yield dict(zip(OUTPUTS, map(np.asarray, outputs), strict=True))


def _theirs(manifest: Manifest, tensors: Mapping[str, torch.Tensor], S: int, tokens: np.ndarray,
            context: np.ndarray, z: list[np.ndarray]) -> Iterator[Outputs]:
    decoder = reference.Decoder(**manifest.arch, seq_len=S)
    decoder.load_state_dict({name.removeprefix("inner."): tensor.float() for name, tensor in tensors.items()
                             if name.startswith("inner.") and name != PUZZLE_EMBEDDINGS})
    latents = reference.Latents(*map(torch.from_numpy, z))
    with torch.no_grad():
        for _ in range(ACT_STEPS):
            out = decoder(torch.from_numpy(context), torch.from_numpy(tokens), latents)
            latents = out.latents
            yield dict(zip(OUTPUTS, (t.numpy() for t in (*out[:3], *latents)), strict=True))
