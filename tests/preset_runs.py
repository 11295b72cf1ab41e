"""Runs of presets, shrunk to seconds, and what they leave behind."""

import contextlib
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from tests import tiny
from trm_jax.data.arc.tasks import TaskError
from trm_jax.errors import ConfigError
from trm_jax.models import decoder
from trm_jax.train import train

PRESETS = sorted(path.stem for path in Path("configs").glob("*.py") if path.stem not in ("__init__", "base"))
PLANNED = [name for name in PRESETS if name not in ("small", "t1", "t2")]  # those of the experiment plan


# What else runs as a preset does, and the preset that it changes.
TRM = {"encoder.type": "embedding", "mode.encode": "every_step", "data.variants": 2, "data.queries": "all",
       "data.evaluation_demos": True}
OTHERS = {"trm": ("o1", TRM), "contrastive": ("r1", {"loss.contrastive_weight": 0.5})}


def preset(name: str, source: Path, **train_overrides: object) -> ConfigDict:
    """The preset, or one of OTHERS, on the tasks in `source`, with other values in its `train` section."""
    base, changes = OTHERS.get(name, (name, {}))
    config = importlib.import_module(f"configs.{base}").get_config("tiny")
    config.update_from_flattened_dict(changes)
    config = tiny.shrink(config, source)
    config.train.update(train_overrides)
    return config


@contextlib.contextmanager
def devices(number: int) -> Iterator[None]:
    """Runs see the first `number` of the virtual devices only."""
    first = jax.devices()[:number]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "devices", lambda: first)
        yield


@contextlib.contextmanager
def eager_runs() -> Iterator[None]:
    """A fresh Q-head wants to halt at once: exploration lets some rows go on while others start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoder, "Q_HEAD_BIAS", 0.5)
        yield


def scalars(workdir: Path) -> dict[str, list[float]]:
    """TensorBoard tag → values."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(workdir), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [point.value for point in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def leaves(tree: Any) -> list[tuple[str, np.ndarray]]:
    """Path and value of every array of a state."""
    return [(jax.tree_util.keystr(path), np.asarray(leaf)) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]


def assert_same_bits(one: Any, other: Any) -> None:
    for (path, a), (_, b) in zip(leaves(one), leaves(other), strict=True):
        assert a.tobytes() == b.tobytes(), path


def refused(config: ConfigDict, workdir: Path) -> str:
    """The one line that refuses `config`; `workdir` is left as it is."""
    before = sorted(workdir.rglob("*"))
    with pytest.raises((ConfigError, TaskError)) as error:
        train(config, workdir)
    assert "\n" not in str(error.value)
    assert sorted(workdir.rglob("*")) == before
    return str(error.value)
