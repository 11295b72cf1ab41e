"""Golden cases as tensors, and the PyTorch reference models that they describe."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tests.parity import Case
from tools import torch_reference as reference

PREFIX = "_orig_mod.model."

torch.set_num_threads(1)  # the models are tiny: threads would only wait for each other


def tensors(case: Case, prefix: str = "") -> dict[str, Tensor]:
    """The case's arrays whose name starts with `prefix`, without it."""
    chosen = {name: array for name, array in case.arrays.items() if name.startswith(prefix)}
    return {name.removeprefix(prefix): torch.from_numpy(array.copy()) for name, array in chosen.items()}


def batches(case: Case) -> list[reference.Batch]:
    """The batches of a trajectory, in order."""
    stacked = tensors(case, "batch/")
    return [dict(zip(stacked, rows, strict=True)) for rows in zip(*stacked.values(), strict=True)]


def check(
    case: Case,
    actual: dict[str, Any],
    row: int | None = None,
    *,
    rtol: float = 0.0,
    atol: float | None = None,
) -> None:
    """Compare with the case's arrays of the same names, or with one row of each.

    Integers and booleans have to be equal; floats may differ by `atol`, by default what case.json suggests.
    """
    for name, value in actual.items():
        want = case.arrays[name] if row is None else case.arrays[name][row]
        got = value.detach().numpy() if isinstance(value, Tensor) else np.asarray(value)
        assert got.shape == want.shape, name
        if want.dtype.kind == "f":
            limit = case.atol(name) if atol is None else atol
            np.testing.assert_allclose(got, want, rtol, limit, err_msg=name)
        else:
            np.testing.assert_array_equal(got, want, err_msg=name)


def load(module: nn.Module, case: Case, prefix: str) -> None:
    """Load the part of the case's checkpoint below `prefix`, every key of it."""
    state = {k.removeprefix(prefix): v for k, v in case.state_dict().items() if k.startswith(prefix)}
    module.load_state_dict(state, strict=True)


def pick(config: dict[str, Any], names: str) -> dict[str, Any]:
    return {name: config[name] for name in names.split()}


def make_decoder(case: Case) -> reference.Decoder:
    """The decoder of a case of group A, C or D with the case's weights."""
    config = case.info["config"]
    sizes = pick(config, "hidden_size num_heads expansion seq_len puzzle_emb_len L_layers H_cycles L_cycles")
    has_table = "puzzle_emb_ndim" in config
    decoder = reference.Decoder(
        **sizes,
        **pick(config, "pos_encodings vocab_size"),
        mlp_t=config.get("mlp_t", False),
        puzzle_emb_shape=(config["num_puzzle_identifiers"], config["puzzle_emb_ndim"]) if has_table else None,
    )
    load(decoder, case, PREFIX + "inner.")
    return decoder


def make_encoder(case: Case) -> reference.Encoder:
    """The encoder of a case of group B, C or D with the case's weights."""
    config = dict(case.info["config"])
    if (
        case.info["group"] != "B"
    ):  # trajectories name the encoder's options as the PyTorch project's configs do
        options = ("num_layers", "set_layers", "norm_style", "pooling_method")
        config |= {option: config[f"encoder_{option}"] for option in options}
    else:
        config["set_layers"] = config["set_encoder_layers"]
    encoder = reference.make_encoder(
        config["encoder_type"],
        **pick(config, "hidden_size num_heads expansion vocab_size num_layers set_layers"),
        **pick(config, "norm_style pooling_method"),
        num_tokens=case.info["symbols"]["P"],
        layer_scale_init=config.get("layer_scale_init", 0.0),
        final_norm=case.info["set_encoder_final_norm"],
    )
    load(encoder, case, PREFIX + "encoder.")
    return encoder


def make_trainer(case: Case) -> reference.Trainer:
    """Model and optimiser of a case of group C or D."""
    optim, loss = case.info["optimizer"], case.info["loss"]
    model = reference.ETRM(make_encoder(case), make_decoder(case))
    return reference.Trainer(
        model,
        reference.AdamATan2(model.parameters(), optim["lr"], optim["betas"], optim["weight_decay"]),
        grad_clip_norm=optim["grad_clip_norm"],
        kl_weight=loss["kl_weight"],
        token_loss=loss["loss_type"].removesuffix("_cross_entropy"),
    )
