"""Builds our model from a golden case: its sizes from case.json, its weights from the PyTorch state dict."""

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from tests.parity import Case
from tools.torch_names import from_torch
from trm_jax.dynamics.act import Batch
from trm_jax.dynamics.losses import LossConfig
from trm_jax.dynamics.optim import OptimConfig
from trm_jax.models.decoder import ArchConfig, Decoder
from trm_jax.models.encoders import Encoder, EncoderConfig
from trm_jax.models.etrm import ETRM, split
from trm_jax.models.layers import parameter_keys

PREFIX = "_orig_mod.model."


def arch_config(config: dict[str, Any]) -> ArchConfig:
    """The arch section of a decoder or trajectory case; encoder cases name only what an encoder has."""
    return ArchConfig(
        hidden_size=config["hidden_size"],
        num_heads=config["num_heads"],
        expansion=config["expansion"],
        L_layers=config.get("L_layers", 1),
        H_cycles=config.get("H_cycles", 1),
        L_cycles=config.get("L_cycles", 1),
        puzzle_emb_len=config.get("puzzle_emb_len", config.get("output_tokens")),
        pos_encodings=config.get("pos_encodings", "rope"),
        mlp_t=config.get("mlp_t", False),
        forward_dtype=config["forward_dtype"],
        attention="blocked",
        remat="none",
        halt_max_steps=config.get("halt_max_steps", 1),
        halt_exploration_prob=config.get("halt_exploration_prob", 0.0),
    )


def encoder_config(config: dict[str, Any], final_norm: bool) -> EncoderConfig:
    """The encoder section, from an encoder case or (keys prefixed with `encoder_`) a trajectory."""
    def get(name: str, default: Any) -> Any:
        return config.get(f"encoder_{name}", config.get(name, default))

    return EncoderConfig(
        type=config["encoder_type"],
        num_layers=get("num_layers", 2),
        pooling_method=get("pooling_method", "mean"),
        set_layers=config.get("encoder_set_layers", config.get("set_encoder_layers", 1)),
        norm_style=get("norm_style", "post"),
        layer_scale_init=get("layer_scale_init", 0.0),
        final_norm=final_norm,
        embedding_width=0,
        max_demos=10,
    )


def weights(case: Case, file: str = "state_dict.pt") -> dict[str, np.ndarray]:
    """PyTorch key → array of the case's model, without puzzle embeddings."""
    state = {key.removeprefix(PREFIX): tensor.numpy() for key, tensor in case.state_dict(file).items()}
    state.pop("inner.puzzle_emb.weights", None)
    return state


def load(make: Callable[[], nnx.Module], part: str | None, state: dict[str, np.ndarray]
         ) -> tuple[nnx.GraphDef, Any, Any]:
    """(graph, parameters, buffers) of a model filled from `state`; `part` names one that is one part only."""
    graph, params, buffers = split(nnx.eval_shape(make))
    if part is None:
        return graph, *from_torch(state, params, buffers)
    params, buffers = from_torch(state, {part: params}, {part: buffers})
    return graph, params[part], buffers[part]


def decoder(case: Case) -> tuple[nnx.GraphDef, Any, Any]:
    config = case.info["config"]
    return load(lambda: Decoder(arch_config(config), config["seq_len"], parameter_keys(0)), "decoder", weights(case))


def trm(case: Case) -> ETRM:
    """The whole model of a decoder case, with its table of puzzle embeddings."""
    config = case.info["config"]
    rows, width = config["num_puzzle_identifiers"], config["puzzle_emb_ndim"]
    settings = EncoderConfig(type="embedding", num_layers=1, pooling_method="mean", set_layers=1, norm_style="post",
                             layer_scale_init=0.0, final_norm=True, embedding_width=width, max_demos=1)
    state = {key.removeprefix(PREFIX): tensor.numpy() for key, tensor in case.state_dict().items()}
    model = functools.partial(ETRM, arch_config(config), settings, config["seq_len"])
    return nnx.merge(*load(lambda: model(parameter_keys(0), rows), None, state))


def encoder(case: Case) -> tuple[nnx.GraphDef, Any, Any]:
    config = case.info["config"]
    settings = encoder_config(config, case.info["set_encoder_final_norm"])
    return load(lambda: Encoder(arch_config(config), settings, parameter_keys(0)), "encoder", weights(case))


def etrm(case: Case) -> ETRM:
    """The model of a trajectory, with its initial weights."""
    return nnx.merge(*etrm_parts(case, "state_dict.pt"))


def etrm_parts(case: Case, file: str) -> tuple[nnx.GraphDef, Any, Any]:
    """(graph, parameters, buffers) of a trajectory's model with the weights in `file`."""
    config = case.info["config"]
    encoder = encoder_config(config, case.info["set_encoder_final_norm"])
    model = functools.partial(ETRM, arch_config(config), encoder, config["seq_len"])
    return load(lambda: model(parameter_keys(0)), None, weights(case, file))


def optim_config(case: Case) -> OptimConfig:
    """Constant learning rate, as the trajectories were recorded."""
    recorded = case.info["optimizer"]
    return OptimConfig(
        lr=recorded["lr"], lr_min_ratio=1.0, lr_warmup_steps=0, weight_decay=recorded["weight_decay"],
        beta1=recorded["betas"][0], beta2=recorded["betas"][1], grad_clip_norm=recorded["grad_clip_norm"],
        ema=True, ema_rate=0.999, encoder_lr_scale=1.0, freeze_encoder_steps=0, freeze_decoder_steps=0,
        embedding_lr=1e-2, embedding_weight_decay=0.1)


def loss_config(case: Case) -> LossConfig:
    """The PyTorch KL weight acts per row of the batch (its loss is a sum that is divided by the batch size)."""
    recorded = case.info["loss"]
    return LossConfig(type=recorded["loss_type"].removesuffix("_cross_entropy"),
                      kl_weight=recorded["kl_weight"] / case.info["config"]["batch_size"],
                      contrastive_weight=0.0, contrastive_temperature=0.1)


def batches(case: Case) -> list[Batch]:
    """The recorded batches of a trajectory."""
    arrays = case.arrays
    demos = np.stack([arrays["batch/demo_inputs"], arrays["batch/demo_labels"]], axis=3).astype(np.uint8)
    return [
        Batch(inputs=jnp.asarray(arrays["batch/inputs"][i].astype(np.uint8)),
              labels=jnp.asarray(arrays["batch/labels"][i]),
              demos=jnp.asarray(demos[i]),
              demo_mask=jnp.asarray(arrays["batch/demo_mask"][i]),
              task=jnp.asarray(arrays["batch/puzzle_identifiers"][i]),
              row=jnp.zeros(len(demos[i]), jnp.int32))
        for i in range(len(demos))
    ]
