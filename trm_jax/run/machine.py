"""What this machine can do, asked once at the start of a run: how its model computes.

The fields of the `arch` section that are "auto" are replaced here, and nowhere else, as is `train.microbatches=0`.
"""

import dataclasses
import functools
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from trm_jax.dynamics.act import Batch, batch_shapes
from trm_jax.errors import ConfigError
from trm_jax.models.attention import attend
from trm_jax.models.decoder import AUTO, ArchConfig
from trm_jax.models.encoders import SOURCES, EncoderConfig
from trm_jax.models.etrm import ETRM
from trm_jax.models.layers import parameter_keys, swiglu_width
from trm_jax.models.remat import REMAT
from trm_jax.run.mesh import Mesh
from trm_jax.run.settings import Settings

HALF = 0.5  # of a machine's memory, which the system and other programs need too; a GPU's is the run's alone
FILLED = 0.85  # of what is left, since activations are not all that stands in it
CACHE = 2**20  # bytes of an activation that a CPU computes with fast: near those of a core's own cache

Attempt = Callable[[Settings, jax.Device], None]  # raises where the fused attention does not run


def resolve(settings: Settings, mesh: Mesh, *, training: bool = True) -> tuple[Settings, list[str]]:
    """`settings` as they are computed with on the devices of `mesh`, and what was chosen, as lines for the log.

    Args:
        training: whether there is a backward pass; without one nothing is chosen for it.

    Raises:
        ConfigError: arch.attention="cudnn" does not run here.
    """
    device = mesh.local_devices[0]
    settings, dtype = _with_dtype(settings, device)
    settings, attention = _with_attention(settings, device)
    if not training:
        return settings, [f"activations in {dtype}; attention: {attention}"]
    settings, parts = in_parts(settings, mesh.size, device.platform)
    settings, remat = with_remat(settings, mesh.size, memory(device))
    return settings, [f"activations in {dtype}; attention: {attention}; remat: {remat}{parts}"]


def _with(settings: Settings, **fields: Any) -> Settings:
    return dataclasses.replace(settings, arch=dataclasses.replace(settings.arch, **fields))


def _with_dtype(settings: Settings, device: jax.Device) -> tuple[Settings, str]:
    dtype = settings.arch.forward_dtype
    if dtype == AUTO:
        dtype = "float32" if device.platform == "cpu" else "bfloat16"
    elif dtype == "float32":  # by name: a GPU multiplies in TF32 then, a TPU in bfloat16, unless it is told not to
        jax.config.update("jax_default_matmul_precision", "highest")
    return _with(settings, forward_dtype=dtype), dtype


def _with_attention(settings: Settings, device: jax.Device) -> tuple[Settings, str]:
    form, why = settings.arch.attention, ""
    if form == AUTO:
        form, why = best_attention(settings, device)
    elif form == "cudnn" and (refusal := _refusal(settings, device, try_fused)):
        raise ConfigError(f"arch.attention='cudnn' does not run here: {refusal}; 'auto' takes what does")
    return _with(settings, attention=form), form + (f" ({why})" if why else "")


def best_attention(settings: Settings, device: jax.Device, attempt: Attempt | None = None) -> tuple[str, str]:
    """The fastest form of attention that runs on `device`, and why no faster one was taken ("" if there is none)."""
    if device.platform == "cpu":
        return "blocked", ""
    if device.platform != "gpu":
        return "xla", ""
    refusal = _refusal(settings, device, attempt or try_fused)
    return ("xla", f"not cudnn: {refusal}") if refusal else ("cudnn", "")


def _refusal(settings: Settings, device: jax.Device, attempt: Attempt) -> str:
    """Why the fused attention is not to be had, in one line; "" where it is."""
    if settings.arch.dtype == np.float32:
        return "it takes half precision only, and activations are in float32"
    try:
        attempt(settings, device)
    except Exception as error:  # whatever it is that stands in the way: a version, a card, a driver, a shape
        return (str(error).strip() or type(error).__name__).splitlines()[0]
    return ""


def try_fused(settings: Settings, device: jax.Device) -> None:
    """Runs cuDNN's attention forward and backward at the lengths and head sizes of a run. Raises what it raises."""
    arch = settings.arch
    lengths = SOURCES[settings.encoder.type].attends(settings.seq_len)
    if not arch.mlp_t:
        lengths |= {arch.puzzle_emb_len + settings.seq_len}
    for length in sorted(lengths):
        shape = (2, length, arch.num_heads, arch.hidden_size // arch.num_heads)
        q = jax.device_put(jnp.ones(shape, arch.dtype), device)
        gradient = jax.jit(jax.grad(lambda q: jnp.square(attend(q, q, q, "cudnn").astype(jnp.float32)).sum()))(q)
        if not bool(jnp.isfinite(gradient).all()):
            raise FloatingPointError(f"its gradient is not finite at length {length}")


def memory(device: jax.Device) -> int:
    """Bytes that a run may take of a device's memory."""
    found = device.memory_stats() if device.platform != "cpu" else None
    if found and "bytes_limit" in found:
        return found["bytes_limit"]
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return int(HALF * pages / jax.local_device_count())


def in_parts(settings: Settings, devices: int, platform: str) -> tuple[Settings, str]:
    """`settings` with the rows of each of so many devices in parts, where nothing else is said, and how many: of as
    many rows as a CPU computes with in its cache. A GPU has them all at once."""
    if settings.train.microbatches:
        return settings, ""
    arch, rows, parts = settings.arch, max(settings.data.global_batch_size // devices, 1), 1
    if platform == "cpu" and not settings.loss.contrastive_weight:  # which compares all rows
        tokens = arch.puzzle_emb_len + settings.seq_len
        row = tokens * 2 * swiglu_width(arch.hidden_size, arch.expansion) * arch.dtype.itemsize  # where it is widest
        parts = next(parts for parts in range(1, rows + 1)
                     if rows % parts == 0 and (rows // parts * row <= CACHE or parts == rows))
    settings = dataclasses.replace(settings, train=dataclasses.replace(settings.train, microbatches=parts))
    return settings, f"; the {rows} rows of a device in {parts} parts" if parts > 1 else ""


def with_remat(settings: Settings, devices: int, available: int) -> tuple[Settings, str]:
    """`settings` as each of so many devices with `available` bytes recomputes, and how and why, for the log."""
    how, why = settings.arch.remat, ""
    if how == AUTO:
        rows = settings.data.global_batch_size // devices // (settings.train.microbatches or 1)
        how, why = fitting_remat(settings, max(rows, 1), available)
    return _with(settings, remat=how), how + (f" ({why})" if why else "")


def fitting_remat(settings: Settings, rows: int, available: int) -> tuple[str, str]:
    """The fastest of REMAT whose activations of `rows` rows a device fit `available` bytes, and why none faster."""
    why = []
    for how in REMAT:
        arch = dataclasses.replace(settings.arch, remat=how)
        kept = kept_bytes(arch, settings.encoder, settings.seq_len, rows)
        if kept <= FILLED * available or how == REMAT[-1]:
            break
        why.append(f"{how} would keep {kept / 1e9:.1f} GB of {available / 1e9:.1f}")
    return how, ", ".join(why)


@functools.cache
def kept_bytes(arch: ArchConfig, encoder: EncoderConfig, seq_len: int, rows: int) -> int:
    """Bytes that one ACT step of `rows` rows keeps for its backward pass, by tracing it; parameters are not counted."""
    batch = batch_shapes(rows, encoder.max_demos, seq_len)
    graph, weights = nnx.split(nnx.eval_shape(lambda: ETRM(arch, encoder, seq_len, parameter_keys(0), table_rows=1)))

    def kept(weights: nnx.State, batch: Batch) -> Any:
        def logits(weights: nnx.State) -> jax.Array:
            model = nnx.merge(graph, weights)
            context = model.encoder(batch.demos, batch.demo_mask, entries=model.encoder.entries(batch.row)).tokens
            return model.decoder(model.decoder.initial(rows), batch.inputs, context)[1]

        return jax.vjp(logits, weights)[1]

    leaves = jax.tree.leaves(jax.eval_shape(kept, weights, batch))
    return sum(x.size * x.dtype.itemsize for x in leaves) - sum(4 * x.size for x in jax.tree.leaves(weights))
