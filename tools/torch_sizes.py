"""What model a state dict belongs to: read off its shapes, its run's all_config.yaml and the command line."""

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from tools.torch_checkpoint import CONFIG_FILE, CheckpointError, TorchCheckpoint
from trm_jax.models.decoder import ArchConfig
from trm_jax.models.encoders import EncoderConfig
from trm_jax.models.layers import swiglu_width
from trm_jax.run import fields
from trm_jax.run.pretrained import ARCH_FIELDS

Facts = dict[str, Any]

USUAL_EXPANSION = 4.0
# Rows of the puzzle embeddings of the published ARC-AGI-1 and ARC-AGI-2 checkpoints: one per augmented task of a
# training set into which the evaluation tasks' demonstrations went. A retraining on the same set has as many.
OFFICIAL_ROWS = {876_406: "ARC-AGI-1", 1_191_730: "ARC-AGI-2"}

# Which parts an encoder's keys show: (CLS token, set encoder, latent).
ENCODER_TYPES = {
    (False, True, False): "standard",
    (True, True, False): "hybrid_standard",
    (True, True, True): "hybrid_variational",
    (True, False, False): "lpn_standard",
    (True, False, True): "lpn_variational",
}
ENCODER_FIELDS = ("type", "num_layers", "pooling_method", "set_layers", "norm_style", "layer_scale_init",
                  "final_norm")


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What `trm_jax.run.pretrained.Manifest` says of a model, under the same names."""

    arch: Facts
    seq_len: int | None
    encoder: Facts | None


def infer(checkpoint: TorchCheckpoint, flags: Facts) -> Sizes:
    """Sizes of the checkpoint's model.

    Args:
        flags: what the command line says, by field name; None where it says nothing.

    Raises:
        CheckpointError: two sources disagree, or something is in none of them.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in checkpoint.tensors.items()}
    recorded = checkpoint.config.get("arch", {})
    encoder = None
    if any(name.startswith("encoder.") for name in shapes):
        encoder = _agree(ENCODER_FIELDS, {
            "the shapes": _encoder_shapes(shapes), CONFIG_FILE: _encoder_config(shapes, recorded),
            "the command line": flags})
        if encoder["final_norm"] is None:
            encoder["final_norm"] = True  # only early runs of the project have none, and no config of theirs says so
    arch = _agree(ARCH_FIELDS, {
        "the shapes": _arch_shapes(shapes, encoder), CONFIG_FILE: _arch_config(recorded), "the command line": flags})
    if arch["expansion"] is None:
        width = _shape(shapes, "inner.L_level.layers.0.mlp.down_proj.weight")[1]
        arch["expansion"] = _expansion(arch["hidden_size"], width)
    if arch["pos_encodings"] is None:
        arch["pos_encodings"] = "rope"
    _check_known(arch, encoder or {})
    return Sizes(arch, _seq_len(shapes, arch["puzzle_emb_len"]), encoder)


def is_official(checkpoint: TorchCheckpoint, flag: bool | None) -> tuple[bool, str]:
    """Whether training saw the evaluation tasks' demonstrations, as for the published checkpoints; and how one knows.

    The size of the puzzle embedding table tells: it is that of the augmented training set.
    """
    if flag is not None:
        return flag, "said on the command line"
    table = checkpoint.tensors.get("inner.puzzle_emb.weights")
    start = checkpoint.config.get("load_pretrained_decoder")
    if table is not None and len(table) in OFFICIAL_ROWS:
        return True, (f"its {len(table):,} puzzle embeddings are those of the published {OFFICIAL_ROWS[len(table)]} "
                      "training set")
    if start:
        return True, f"{CONFIG_FILE} says that it started from the pretrained decoder {start}"
    if table is not None:
        return False, f"its {len(table):,} puzzle embeddings are those of no published training set"
    return False, f"neither puzzle embeddings nor {CONFIG_FILE} say that it is"


def _agree(names: tuple[str, ...], sources: Mapping[str, Facts]) -> Facts:
    """Each field's one value, None where no source has it."""
    settled: Facts = {}
    for name in names:
        said = {source: facts[name] for source, facts in sources.items() if facts.get(name) is not None}
        if len(set(said.values())) > 1:
            raise CheckpointError(f"{name} is " + " but ".join(f"{v!r} in {s}" for s, v in said.items()))
        settled[name] = next(iter(said.values()), None)
    return settled


def _check_known(arch: Facts, encoder: Facts) -> None:
    unknown = [name for name, value in {**arch, **encoder}.items() if value is None]
    if unknown:
        flags = ", ".join(f"--{name.lower().replace('_', '-')}" for name in unknown)
        raise CheckpointError(f"the shapes do not tell {', '.join(unknown)}: put the run's {CONFIG_FILE} beside the "
                              f"checkpoint, or give {flags} (--help has the published checkpoints' values)")


def _shape(shapes: Mapping[str, tuple[int, ...]], name: str) -> tuple[int, ...]:
    if len(shapes.get(name, ())) != 2:
        raise CheckpointError(f"{name} is missing or no matrix: this is no state dict of a TRM")
    return shapes[name]


def _arch_shapes(shapes: Mapping[str, tuple[int, ...]], encoder: Facts | None) -> Facts:
    _, hidden_size = _shape(shapes, "inner.embed_tokens.embedding_weight")
    mlp_t = any(".mlp_t." in name for name in shapes)
    positions = "learned" if "inner.embed_pos.embedding_weight" in shapes else "none" if mlp_t else None
    tokens = None
    if encoder is not None:
        per_token = {"encoder.set_encoder.query_tokens": 1, "encoder.output_proj.weight": hidden_size}
        tokens = next((shapes[name][0] // size for name, size in per_token.items() if name in shapes), None)
    return {"hidden_size": hidden_size, "L_layers": _count(shapes, "inner.L_level"), "mlp_t": mlp_t,
            "pos_encodings": positions, "puzzle_emb_len": tokens}


def _arch_config(recorded: Facts) -> Facts:
    facts = _recorded(recorded, ARCH_FIELDS, ArchConfig)
    if facts["mlp_t"] and facts["pos_encodings"] == "rope":
        facts["pos_encodings"] = "none"  # there is no attention to rotate
    if facts["puzzle_emb_len"] == 0:  # means as many tokens as the puzzle embedding fills
        sizes = recorded.get("puzzle_emb_ndim"), recorded.get("hidden_size")
        facts["puzzle_emb_len"] = -(-sizes[0] // sizes[1]) if all(sizes) else None
    return facts


def _recorded(recorded: Facts, names: Iterable[str], section: type, prefix: str = "") -> Facts:
    """These fields of a config's section as all_config.yaml has them, None where it has not. Raises ConfigError."""
    kinds, facts = fields.kinds(section), {name: recorded.get(prefix + name) for name in names}
    for name, value in facts.items():
        if value is not None:
            fields.check_kind(f"{CONFIG_FILE}: arch.{prefix}{name}", value, kinds[name])
    return facts


def _encoder_shapes(shapes: Mapping[str, tuple[int, ...]]) -> Facts:
    def has(part: str) -> bool:
        return any(name.startswith(f"encoder.{part}") for name in shapes)

    parts = (has("grid_encoder.cls_token"), has("set_encoder."), has("mu_proj."))
    if parts not in ENCODER_TYPES:
        raise CheckpointError(f"the encoder.* keys are those of none of: {', '.join(ENCODER_TYPES.values())}")
    pooling = {"attention": has("grid_encoder.pool_query"), "weighted": has("grid_encoder.pool_weight_proj")}
    return {
        "type": ENCODER_TYPES[parts],
        "num_layers": _count(shapes, "encoder.grid_encoder"),
        "pooling_method": next((method for method, found in pooling.items() if found), "mean"),
        "set_layers": _count(shapes, "encoder.set_encoder") if has("set_encoder.") else 1,
        "norm_style": None if has("set_encoder.") else "post",
        "layer_scale_init": None if any(name.endswith(".gamma_1") for name in shapes) else 0.0,
    }


def _encoder_config(shapes: Mapping[str, tuple[int, ...]], recorded: Facts) -> Facts:
    """What all_config.yaml says of the encoder, without the options that its type has no use for."""
    facts = _recorded(recorded, ENCODER_FIELDS, EncoderConfig, "encoder_")
    if facts["type"] != "standard":
        del facts["pooling_method"]
    if not any(name.startswith("encoder.set_encoder.") for name in shapes):
        del facts["set_layers"], facts["norm_style"]
    return facts


def _count(shapes: Mapping[str, tuple[int, ...]], stack: str) -> int:
    """Layers of a stack: one more than the highest number in its keys."""
    numbers = [int(m.group(1)) for name in shapes if (m := re.match(re.escape(stack) + r"\.layers\.(\d+)\.", name))]
    return max(numbers, default=0) + 1


def _seq_len(shapes: Mapping[str, tuple[int, ...]], context_tokens: int) -> int | None:
    """S, tokens of one canvas; None where no shape depends on it."""
    positions = ("inner.embed_pos.embedding_weight", "inner.L_level.layers.0.mlp_t.down_proj.weight")
    length = next((shapes[name][0] for name in positions if name in shapes), None)
    if length is None:
        return None
    tokens = length - context_tokens
    if tokens < 1 or math.isqrt(tokens)**2 != tokens:
        raise CheckpointError(f"{length} positions less puzzle_emb_len={context_tokens} leave {tokens} tokens, which "
                              "make no square canvas: puzzle_emb_len must be another")
    return tokens


def _expansion(hidden_size: int, width: int) -> float:
    """An expansion that gives this SwiGLU width: the usual one where it does."""
    fits = swiglu_width(hidden_size, USUAL_EXPANSION) == width
    return USUAL_EXPANSION if fits else width * 3 / (2 * hidden_size)
