"""What the compiled training step sends between devices."""

import re

import jax
import numpy as np
import pytest

from tests import tiny
from tests.preset_runs import preset
from tests.sharing import make_step
from trm_jax.errors import ConfigError
from trm_jax.run.machine import resolve
from trm_jax.run.mesh import data_mesh

BYTES = {"pred": 1, "s32": 4, "u32": 4, "f32": 4}
COLLECTIVE = re.compile(r" = (.*?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-\w+)(?:-start)?\(")
COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\) -> ")


def training(name, source, devices, parts=1, **arch):
    """The step of `test_train`, where that has one: it need not be traced and compiled again."""
    config = preset(name, source, microbatches=parts)
    config.arch.update(arch)
    mesh = data_mesh(jax.devices()[:devices])
    settings, _ = resolve(tiny.settings(config), mesh)
    return make_step(settings, mesh, tiny.TASKS)


def collectives(program):
    """(operation, bytes, computation) of every collective in a compiled program's text."""
    found, computation = [], ""
    for line in program.splitlines():
        if start := COMPUTATION.match(line):
            computation = start[1]
        elif match := COLLECTIVE.search(line):
            shapes = re.findall(r"(\w+)\[([\d,]*)\]", match[1])
            size = sum(BYTES[kind] * int(np.prod([int(n) for n in dims.split(",") if n])) for kind, dims in shapes)
            found.append((match[2], size, computation))
    return found


def loop_bodies(program):
    """Computations that are the body of a loop."""
    return set(re.findall(r" while\(.*?body=%?([\w.\-]+)", program))


# Also with the rows of a device in two parts, whose gradients are added up before they are sent.
@pytest.mark.parametrize(("name", "devices", "parts"), [
    ("o1", 4, 2), ("r1", 8, 1), ("l1", 4, 2), ("e3", 4, 2), ("trm", 8, 1)])
def test_an_update_is_one_reduction_of_the_gradient(name, devices, parts, source, eager):
    """Nothing is gathered, no more than 1 % is sent besides, and no loop over cycles or parts sends at all.

    The compiler decides how many messages this one sum becomes.
    """
    made = training(name, source, devices, parts, **({"L_layers": 2} if name == "trm" else {}))  # scalars are few then
    program = made.step.lower(made.state, made.batch).compile().as_text()
    found, gradient = collectives(program), 4 * sum(leaf.size for leaf in jax.tree.leaves(made.state.params))
    if name == "trm":  # of the table: the gradient of what the rows looked up, and where
        gradient += 4 * len(made.batch.row) * (1 + made.state.buffers["encoder"]["table"].shape[1])
    assert {operation for operation, _, _ in found} == {"all-reduce"}
    assert gradient <= sum(size for _, size, _ in found) <= 1.01 * gradient
    assert len(found) <= 6
    within_loops = [computation for _, _, computation in found if computation in loop_bodies(program)]
    if name == "l1":  # the loop over ACT steps, in which each is an update
        assert len(set(within_loops)) == 1
    else:
        assert not within_loops


def test_a_contrastive_term_gathers_the_pooled_contexts_alone(source, eager):
    """And sends their gradient back: for each row D numbers, and which row and task it is. It is part of the loss."""
    made, rng = training("contrastive", source, 4), np.random.default_rng(0)
    step = made.step.lower(made.state, made.batch).compile()
    found = collectives(step.as_text())
    rows, width = len(made.batch.row), 16
    gradient = 4 * sum(leaf.size for leaf in jax.tree.leaves(made.state.params))
    sent = {kind: sum(size for operation, size, _ in found if operation == kind) for kind, _, _ in found}
    assert sent["all-gather"] <= rows * 4 * (width + 3)
    back = sent["all-reduce"] + sent.get("reduce-scatter", 0) - gradient
    assert 0 <= back <= 0.02 * gradient + rows * width * 4

    def some(leaf):
        numbers = rng.random(leaf.shape) if leaf.dtype == np.float32 else rng.integers(1, 4, leaf.shape)
        return jax.device_put(numbers.astype(leaf.dtype), leaf.sharding)

    _, metrics = step(*jax.tree.map(some, (made.state, made.batch)))
    mean = {name: metrics[name].sum / metrics[name].count for name in metrics}
    assert metrics["contrastive_loss"].count == rows and mean["contrastive_loss"] > 0.1
    np.testing.assert_allclose(
        mean["loss"], mean["lm_loss"] + 0.5 * mean["q_halt_loss"] + 0.5 * mean["contrastive_loss"], rtol=1e-5)


def test_parts_must_divide_the_rows_of_a_device(source):
    with pytest.raises(ConfigError, match=r"train.microbatches=3 must divide the 4 rows of a device"):
        training("o1", source, 2, 3)
