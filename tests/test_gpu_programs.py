"""Every preset but small at full size is lowered for an NVIDIA GPU, without one: training step and evaluation, in
bfloat16.

JAX's own checks of the fused attention are active; they are only told that a card and cuDNN are there. Presets whose
programs differ in nothing but numbers within them are lowered once.
"""

import importlib
import json
import math
import re

import jax
import pytest
from flax import nnx

from benchmarks.gpu_target import as_if_present
from benchmarks.workload import groups, settings_of, training_step
from tests.preset_runs import PLANNED
from trm_jax.dynamics.act import batch_shapes
from trm_jax.dynamics.search import Search
from trm_jax.models.etrm import ETRM, split
from trm_jax.models.layers import parameter_keys
from trm_jax.run.mesh import data_mesh
from trm_jax.run.programs import compiled

PRESETS = sorted([*PLANNED, "t1", "t2"])  # small is for a CPU, and is r1 with other numbers
# Fields that change a number in a program, or nothing of it, but not what it is made of.
NUMBERS = {"mode.num_act_steps", "arch.halt_exploration_prob", "loss.kl_weight", "data.global_batch_size",
           "data.evaluation_demos"}
# The sections that a program is made of.
TRAINING = ("mode", "arch", "encoder", "loss", "optim", "data")
EVALUATION = ("arch", "encoder", "loss", "eval")

PRODUCT = re.compile(r"stablehlo\.dot_general .*contracting_dims = \[([\d, ]*)\].*"
                     r": \(tensor<([\dx]*)x(\w+)>, tensor<[\dx]*x(\w+)>\) -> tensor<([\dx]*?)x?(?:f32|bf16)>")
QUERIES_BY_KEYS = re.compile(r"tensor<[\dx]*?(\d{3,})x\1x(?:bf16|f32)>")


def config(name):
    full = importlib.import_module(f"configs.{name}").get_config()
    full.arch.update(forward_dtype="bfloat16", attention="cudnn", remat="dots")
    return full


def one_device():
    return data_mesh(jax.devices()[:1])


def kinds(sections):
    """One preset for each program that is made of these sections, with the names of those that share it."""
    found = {}
    for name in PRESETS:
        plain = json.loads(config(name).to_json())
        made_of = {f"{section}.{field}": value for section in sections for field, value in plain[section].items()}
        key = json.dumps({field: value for field, value in made_of.items() if field not in NUMBERS})
        found.setdefault(key, []).append(name)
    return [pytest.param(names[0], id="_".join(names)) for names in found.values()]


def encoder_layers(settings):
    return 0 if settings.embeds_tasks else settings.encoder.num_layers


def product(match):
    """Operations of a matrix product, and whether it multiplies bfloat16."""
    inner, left, of_left, of_right, result = match.groups()
    inner, left, result = (list(map(int, re.findall(r"\d+", found))) for found in (inner, left, result))
    return 2 * math.prod(left[axis] for axis in inner) * math.prod(result), of_left == of_right == "bf16"


def check(text, settings):
    """No attention of tokens to tokens is written out, and next to nothing is multiplied but in bfloat16: the heads
    of Q and statistics of the context, a share that falls with the hidden size, to a thousandth at 512."""
    S, T = settings.seq_len, settings.arch.puzzle_emb_len
    square = set(map(int, QUERIES_BY_KEYS.findall(text)))
    assert not square & {T + S, 2 * S, 2 * S + 1, 2 * S + 2}
    products = [product(match) for match in PRODUCT.finditer(text)]
    assert len(products) == text.count("stablehlo.dot_general ")
    total = sum(operations for operations, _ in products)
    assert sum(operations for operations, half in products if not half) < total / (2 * settings.arch.hidden_size)


def lowered(step, *shapes):
    return step.trace(*shapes).lower(lowering_platforms=("cuda",)).as_text()


@pytest.mark.parametrize(("name", "parts"), [*((*preset.values, 1) for preset in kinds(TRAINING)), ("o1", 4)])
def test_training(name, parts):
    full = config(name)
    full.train.microbatches = parts
    settings = settings_of(full)
    with as_if_present():
        step = training_step(settings, one_device())
        text = lowered(step.step, step.state, step.batch)
    check(text, settings)
    # The differentiated layers: in the decoder's two uses of its stack, and in the grid encoder.
    assert text.count("@__cudnn$fmhaSoftmaxBackward(") >= 2 * settings.arch.L_layers + encoder_layers(settings)


def answering(settings, search=None):
    """The program that answers a batch, lowered."""
    graph, params, buffers = split(nnx.eval_shape(lambda: ETRM(
        settings.arch, settings.encoder, settings.seq_len, parameter_keys(0), table_rows=groups(settings))))
    batch = batch_shapes(settings.eval.batch_size, settings.encoder.max_demos, settings.seq_len)
    with as_if_present():
        answer = compiled(one_device(), graph, settings.eval.halt, settings.loss.type, search)
        return lowered(answer, params, buffers, batch, batch.task)  # a variant's number is of the type of a task's


def test_a_latent_search():
    settings = settings_of(config("o1"))
    text = answering(settings, Search(steps=2, lr=0.1))
    check(text, settings)
    assert text.count("@__cudnn$fmhaSoftmaxBackward(") >= 2 * settings.arch.L_layers


@pytest.mark.parametrize("name", kinds(EVALUATION))
def test_evaluation(name):
    settings = settings_of(config(name))
    text = answering(settings)
    check(text, settings)
    assert text.count("@__cudnn$fmhaSoftmax(") >= 2 * settings.arch.L_layers + encoder_layers(settings)


def test_every_preset_is_lowered():
    for sections in (TRAINING, EVALUATION):
        assert sorted(name for case in kinds(sections) for name in case.id.split("_")) == PRESETS
