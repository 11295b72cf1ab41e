"""The PyTorch reference against the golden training trajectories, step by step."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests import parity
from tests.parity import Case
from tests.reference_cases import PREFIX, batches, check, make_trainer, tensors
from tools import torch_reference as reference

pytestmark = pytest.mark.parity


def check_step(case: Case, row: int, model: reference.ETRM, record: reference.Record, steps: Tensor) -> None:
    """Outputs, loss, metrics and gradients of a step, and the parameters after it."""
    out, loss, labels = record.output, record.loss, record.data["labels"]
    actual = {
        "steps": steps,
        "logits_mean": out.logits.mean(),
        "logits_std": out.logits.std(),
        "logits_first16": out.logits.flatten()[:16],
        "q_halt_logits": out.q_halt,
        "q_continue_logits": out.q_continue,
        "seq_is_correct": reference.is_right(out.logits, labels),
        "loss": loss.total,
        "grad_norm": record.grad_norm,
        "grad_norm_encoder": record.encoder_grad_norm,
        "grad_norm_inner": record.decoder_grad_norm,
        "encoder_grad_present": record.encoded is not None,
    }
    metrics = reference.act_metrics(out.logits, out.q_halt, labels, torch.ones_like(steps, dtype=torch.bool))
    metrics |= {"lm_loss": loss.lm, "q_halt_loss": loss.q_halt, "steps": steps.sum()}
    if record.encoded is not None and record.encoded.kl is not None:
        kl = record.encoded.kl
        metrics |= {"kl_loss": kl, "kl_loss_weighted": case.info["loss"]["kl_weight"] * kl}
    check(case, actual | {f"metrics/{name}": value for name, value in metrics.items()}, row)

    parameters = dict(model.named_parameters())
    for name in case.info["named_tensors_after_each_step"]:
        check(case, {f"after/{name}": parameters[name.removeprefix("model.")]}, row)
    for part in ("encoder", "inner"):
        flat = [p.flatten() for name, p in parameters.items() if name.startswith(part)]
        check(case, {f"param_l2_{part}": torch.cat(flat).norm()}, row)


def check_context(case: Case, row: int, context: Tensor) -> None:
    statistics = reference.context_statistics(context)
    check(case, {f"metrics/encoder_{name}": value for name, value in statistics.items()}, row)


def check_end(case: Case, model: reference.ETRM) -> None:
    """The final weights, and an evaluation with them."""
    state = {PREFIX + name: values for name, values in model.state_dict().items()}
    for row, name in enumerate(case.info["final_digest_names"]):
        values = state[name]
        first = F.pad(values.flatten()[:4], (0, max(0, 4 - values.numel())))
        digest = torch.stack([values.mean(), values.std(), values.norm(), *first])
        check(case, {"final_digest": digest}, row, rtol=1e-5, atol=1e-5)
    if "final_state_dict.pt" in case.info["files"]:
        expected = case.state_dict("final_state_dict.pt")
        torch.testing.assert_close(state, expected, rtol=0, atol=case.atol("final_state_dict"))
    if "eval/loss" in case.arrays:
        batch = batches(case)[0]
        for i, out in enumerate(reference.evaluate(model, batch, case.info["config"]["halt_max_steps"])):
            loss = reference.act_loss(out.logits, out.q_halt, batch["labels"])
            q = {"eval/q_halt_logits": out.q_halt, "eval/q_continue_logits": out.q_continue}
            check(case, q | {"eval/loss": loss.total}, row=i)
        check(case, {"eval/last_logits": out.logits, "eval/preds": out.logits.argmax(-1)})


@pytest.mark.parametrize("case", parity.cases("C"), ids=str)
def test_online(case: Case) -> None:
    trainer, num_act_steps, data = make_trainer(case), case.info["config"]["num_act_steps"], tensors(case)
    for i, batch in enumerate(batches(case)):
        rows = range(i * num_act_steps, (i + 1) * num_act_steps)
        eps = data["eps"][rows] if "eps" in data else None
        records = reference.online_batch(trainer, batch, num_act_steps, eps)
        for step, (row, record) in enumerate(zip(rows, records, strict=True), start=1):
            check_step(case, row, trainer.model, record, torch.full((len(batch["inputs"]),), step))
            check_context(case, row, record.context)
    check_end(case, trainer.model)


@pytest.mark.parametrize("case", parity.cases("D"), ids=str)
def test_original(case: Case) -> None:
    trainer, config, data = make_trainer(case), case.info["config"], tensors(case)
    carry = reference.empty_carry(trainer.model, batches(case)[0])
    for row, batch in enumerate(batches(case)):
        check(case, {"needs_reset": carry.halted}, row)
        eps = data["eps"][row] if "eps" in data else None
        before = copy.deepcopy(trainer.model)
        carry, record = reference.original_step(
            trainer,
            carry,
            batch,
            encode={"cached": "once", "reencode": "every_step"}[case.info["mode"]],
            halt_max_steps=config["halt_max_steps"],
            halt_exploration_prob=config["halt_exploration_prob"],
            explore_uniform=data["explore_uniform"][row],
            explore_min_steps=data["explore_min_steps"][row],
            eps=eps,
        )
        check(case, {"halted": carry.halted, "labels_used": carry.data["labels"]}, row)
        check_step(case, row, trainer.model, record, carry.steps)
        if record.encoded is not None:
            # When any row starts, the PyTorch project encodes, and measures, the demos of all rows.
            check_context(case, row, before.encode(carry.data, eps).tokens)
    check_end(case, trainer.model)
