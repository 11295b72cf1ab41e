"""The PyTorch reference against the golden cases: it has to earn the right to judge the JAX model."""

import pytest
import torch
from torch import Tensor, nn

from tests import parity
from tests.parity import Case
from tests.reference_cases import check, make_decoder, make_encoder, tensors
from tools import torch_reference as reference
from tools.torch_reference.layers import rotary_angles

pytestmark = pytest.mark.parity
ROTARY_CASES = [case for case in parity.cases("A") + parity.cases("B") if "rope_cos" in case.arrays]


@pytest.mark.parametrize("case", ROTARY_CASES, ids=str)
def test_rotary_tables(case: Case) -> None:
    angles = rotary_angles(*case.arrays["rope_cos"].shape).repeat(1, 2)
    check(case, {"rope_cos": angles.cos(), "rope_sin": angles.sin()}, atol=1e-6)


@pytest.mark.parametrize("case", parity.cases("A"), ids=str)
def test_decoder_with_puzzle_embedding(case: Case) -> None:
    decoder, data = make_decoder(case), tensors(case)
    context = decoder.puzzle_context(data["puzzle_identifiers"])
    latents = decoder.initial_latents(len(context))
    check(case, {"context_from_puzzle_emb": context})
    check(case, {"input_embeddings": decoder.embed(context, data["inputs"])})
    check(case, {"z_H_init": latents.z_H, "z_L_init": latents.z_L})
    for i in range(case.info["act_steps"]):
        with torch.no_grad():
            out = decoder(context, data["inputs"], latents)
        latents = out.latents
        check(case, {"logits": out.logits, "preds": out.logits.argmax(-1)}, row=i)
        check(case, {"q_halt_logits": out.q_halt, "q_continue_logits": out.q_continue}, row=i)
        check(case, {"z_H": latents.z_H, "z_L": latents.z_L}, row=i)

        # In evaluation every row halts at the last step, and the metrics count a row once it has halted.
        steps = torch.full((len(context),), i + 1)
        halted = steps >= case.info["config"]["halt_max_steps"]
        loss = reference.act_loss(out.logits, out.q_halt, data["labels"])
        metrics = reference.act_metrics(out.logits, out.q_halt, data["labels"], halted)
        metrics |= {"lm_loss": loss.lm, "q_halt_loss": loss.q_halt}
        check(case, {"steps": steps, "halted": halted, "loss": loss.total}, row=i)
        check(case, {f"metrics/{name}": value for name, value in metrics.items()}, row=i)


@pytest.mark.parametrize("case", parity.cases("A"), ids=str)
def test_decoder_with_context(case: Case) -> None:
    decoder, data = make_decoder(case), tensors(case)
    context = data["context"].requires_grad_()
    latents = decoder.initial_latents(len(context))
    for i in range(case.info["act_steps"]):
        out = decoder(context, data["inputs"], latents)
        latents = out.latents
        check(case, {"enc_logits": out.logits}, row=i)
        check(case, {"enc_q_halt_logits": out.q_halt, "enc_q_continue_logits": out.q_continue}, row=i)
        if i == 1:
            heads = {"R_logits": out.logits, "R_q_halt": out.q_halt, "R_q_continue": out.q_continue}
            scalar = sum((head * data[cotangent]).sum() for cotangent, head in heads.items())
            scalar.backward()
    check(case, {"enc_z_H_last": latents.z_H, "enc_z_L_last": latents.z_L})
    check(case, {"enc_grad_scalar": scalar, "enc_grad/context": context.grad})
    for name, parameter in decoder.named_parameters():
        check(case, {f"enc_gradnorm/{name}": parameter.grad.norm()})
        if f"enc_grad/{name}" in case.arrays:
            check(case, {f"enc_grad/{name}": parameter.grad})


def parts_of(encoder: reference.Encoder) -> dict[str, Tensor]:
    """A dictionary that each forward pass fills: child → its output, `into ` child → its first input."""
    seen: dict[str, Tensor] = {}
    for name, child in encoder.named_children():
        child.register_forward_hook(
            lambda _, args, out, name=name: seen.update({name: out, f"into {name}": args[0]})
        )
    return seen


@pytest.mark.parametrize("case", parity.cases("B"), ids=str)
def test_encoder(case: Case) -> None:
    encoder, data = make_encoder(case), tensors(case)
    mask = data["demo_mask"]
    seen = parts_of(encoder)

    def encode(prefix: str, eps: Tensor | None) -> reference.Context:
        context = encoder(data["demo_inputs"], data["demo_labels"], mask, eps)
        latent = seen.get("into decode_proj", seen.get("into output_proj", context.tokens.mean(1)))
        check(case, {f"{prefix}context": context.tokens, f"{prefix}z_pooled": latent})
        if context.kl is not None:
            check(case, {f"{prefix}kl": context.kl})
            for name in ("mu", "logvar"):
                value = seen[f"{name}_proj"]
                if value.ndim == 3:  # per demo, recorded as the mean over the valid ones
                    value = (value * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
                check(case, {f"{prefix}{name}": value})
        return context

    if "eps" in data:
        encode("eval_", None)
        context = encode("train_", data["eps"])
    else:
        context = encode("", None)
    check(case, {"demo_encodings": seen["grid_encoder"].unflatten(0, mask.shape)})
    if "set_encoder_out" in data:
        check(case, {"set_encoder_out": seen["set_encoder"]})
    scalar = (context.tokens * data["R"]).sum() + (0 if context.kl is None else context.kl)
    scalar.backward()
    check(case, {"grad_scalar": scalar})
    check(case, {f"grad/{name}": parameter.grad for name, parameter in encoder.named_parameters()})


@pytest.mark.parametrize("case", parity.cases("B"), ids=str)
def test_encoder_with_empty_slots(case: Case) -> None:
    """Emptying the invalid slots changes nothing; a row without demos is finite, and so are its gradients."""
    encoder, data = make_encoder(case), tensors(case)
    mask = data["demo_mask"]
    grids = [data[name] * mask[..., None] for name in ("demo_inputs", "demo_labels")]
    check(case, {"eval_context" if "eps" in data else "context": encoder(*grids, mask).tokens})

    no_demos = [torch.zeros_like(values) for values in (*grids, mask)]
    if "nodemo_context" in data:
        check(case, {"nodemo_context": encoder(*no_demos).tokens[0]}, atol=1e-5)
    context = encoder(*no_demos, data.get("eps"))
    (context.tokens.sum() + (0 if context.kl is None else context.kl)).backward()
    assert context.tokens.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in encoder.parameters())


@pytest.mark.parametrize("case", parity.cases("E", "losses"), ids=str)
def test_token_losses(case: Case) -> None:
    for scale in {name.split("/")[0] for name in case.arrays} - {"head"}:
        data = tensors(case, f"{scale}/")
        for name in ("stablemax_cross_entropy", "softmax_cross_entropy"):
            logits = data["logits"].clone().requires_grad_()
            loss = getattr(reference, name)(logits, data["labels"])
            (loss * data["cotangent"]).sum().backward()
            actual = {f"{scale}/{name}": loss, f"{scale}/{name}_grad": logits.grad}
            check(case, actual, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("head", ["trm", "etrm_eval", "etrm_train", "etrm_train_kl"])
@pytest.mark.parametrize("case", parity.cases("E", "losses"), ids=str)
def test_loss_head(case: Case, head: str) -> None:
    data = tensors(case, "head/")
    logits, q_halt, kl = (data[name].requires_grad_() for name in ("logits", "q_halt_logits", "kl_loss"))
    has_kl = head == "etrm_train_kl"
    loss = reference.act_loss(logits, q_halt, data["labels"], kl=kl if has_kl else None, kl_weight=0.01)
    loss.total.backward()
    counted = torch.ones_like(data["halted"]) if "train" in head else data["halted"]
    metrics = reference.act_metrics(logits, q_halt, data["labels"], counted)
    metrics |= {"lm_loss": loss.lm, "q_halt_loss": loss.q_halt}
    actual = {"total": loss.total, "grad_logits": logits.grad, "grad_q_halt": q_halt.grad}
    actual |= {f"metrics/{name}": value for name, value in metrics.items()}
    if has_kl:
        actual["grad_kl"] = kl.grad
    check(case, {f"head/{head}/{name}": value for name, value in actual.items()}, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("setting", ["wd", "nowd", "other"])
@pytest.mark.parametrize("case", parity.cases("E", "adam_atan2"), ids=str)
def test_adam_atan2(case: Case, setting: str) -> None:
    data, hyper = tensors(case), case.info["hyperparameters"][setting]
    params = {name: nn.Parameter(data[f"param0/{name}"]) for name in case.info["tensor_names"]}
    optimizer = reference.AdamATan2(params.values(), hyper["lr"], hyper["betas"], hyper["weight_decay"])
    for row, has_grad in enumerate(data["grad_present"]):
        for present, (name, p) in zip(has_grad, params.items(), strict=True):
            p.grad = data[f"grad/{name}"][row] if present else None
        optimizer.step()
        for name, p in params.items():
            check(case, {f"{setting}/param/{name}": p}, row, atol=2e-6)
            for moment in ("exp_avg", "exp_avg_sq"):
                value = optimizer.state[p].get(moment, torch.zeros_like(p))
                check(case, {f"{setting}/{moment}/{name}": value}, row, rtol=1e-5, atol=1e-7)
