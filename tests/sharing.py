"""Programs that the runs of one process share, as if each had made its own."""

import dataclasses
import functools
from typing import Any

import pytest

from configs import base
from tests import tiny
from trm_jax import train
from trm_jax.evaluation import trained, validation
from trm_jax.models import decoder
from trm_jax.run import programs
from trm_jax.run.mesh import Mesh
from trm_jax.run.settings import Settings

# What a training step reads of these sections; of `eval` and `checkpoint` it reads nothing, of all others everything.
READ = {"data": ("global_batch_size", "max_grid_size", "variants"), "train": ("microbatches", "seed")}


def of_a_step(settings: Settings, groups: int) -> Settings:
    """The settings with the default of every field that no training step reads, and the fewest epochs of as many steps.

    A field that is left out here although a step reads it has the same value for every test: that shows.
    """
    plain = base.get_config()
    plain.eval.augmentations = 1
    default = tiny.settings(plain)
    sections: dict[str, Any] = {name: dataclasses.replace(getattr(default, name), **{
        field: getattr(getattr(settings, name), field) for field in read}) for name, read in READ.items()}
    steps = settings.steps(settings.train.epochs, groups)
    sections["train"] = dataclasses.replace(
        sections["train"], epochs=-(-steps * settings.data.global_batch_size // groups))
    return dataclasses.replace(settings, **sections, eval=default.eval, checkpoint=default.checkpoint)


@functools.cache
def _made(settings: Settings, mesh: Mesh, groups: int, q_head_bias: float) -> programs.Training:
    return programs.make_step(settings, mesh, groups)


_steps: dict[tuple[Settings, Mesh, int], Any] = {}  # on which the bias that a Q-head begins with has no influence


def make_step(settings: Settings, mesh: Mesh, groups: int) -> programs.Training:
    """`programs.make_step`, once for all settings that make the same step."""
    made_of = of_a_step(settings, groups), mesh, groups
    training = _made(*made_of, decoder.Q_HEAD_BIAS)
    return dataclasses.replace(training, step=_steps.setdefault(made_of, training.step))


def install(patch: pytest.MonkeyPatch) -> None:
    """Has trainings and evaluations share them."""
    patch.setattr(train, "make_step", make_step)
    for name in ("compiled", "compiled_measure"):
        shared = functools.cache(getattr(programs, name))
        patch.setattr(validation, name, shared)
        patch.setattr(trained, name, shared)
