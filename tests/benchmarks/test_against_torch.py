"""The comparison with PyTorch, run as a command on the smallest configs."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import memory, turns
from benchmarks.turns import take_turns
from tests.preset_runs import preset
from tests.tiny import settings
from tools.torch_reference import layers
from trm_jax.errors import ConfigError

SMALL = {"arch.hidden_size": 16, "arch.num_heads": 2, "arch.expansion": 1.0, "arch.H_cycles": 2, "arch.L_cycles": 1,
         "arch.puzzle_emb_len": 2, "arch.L_layers": 1, "encoder.num_layers": 1, "encoder.max_demos": 3,
         "data.max_grid_size": 4, "arch.forward_dtype": "float32", "arch.remat": "none"}


def test_json_has_the_ratio_of_two_medians(source):
    """Which also says that both sides agreed on two losses, the second behind a gradient and an update."""
    fields = SMALL | {"data.source": f"json:{source}", "loss.type": "stablemax"}
    result = subprocess.run([sys.executable, "-m", "benchmarks.against_torch", "--config=configs/o1.py:tiny",
                             "--rows=8", "--pairs=2", "--json",
                             *(f"--config.{name}={value}" for name, value in fields.items())],
                            capture_output=True, text=True, check=False,
                            env=os.environ | {"JAX_NUM_CPU_DEVICES": "1"})
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["ratio"] == pytest.approx(found["pytorch_seconds"] / found["trm_jax_seconds"])
    ours, theirs = found["sides"]
    assert (ours["name"], theirs["name"]) == ("trm_jax", "PyTorch")
    assert ours["seconds"] > 0 and ours["compile_seconds"] > 0 and theirs["compile_seconds"] == 0
    assert ours["of_peak"] == pytest.approx(
        8 * found["useful_operations_a_sample"] / ours["seconds"] / found["product_peak"])


@pytest.mark.parametrize(("encode", "message"), [
    ("once", "compare it with configs/r1.py"), ("every_step", "--etrm=. holds no checkout")])
def test_what_cannot_be_compared_is_said(encode, message, source, monkeypatch):
    monkeypatch.setattr(layers, "attend", layers.attend)  # the import that follows puts another in its place
    from benchmarks.etrm_side import side_of

    config = preset("o1", source)
    config.mode.encode, config.loss.type = encode, "stablemax"
    with pytest.raises(ConfigError, match=message):
        side_of(".", settings(config))


class Fake:
    """A side whose updates take given times and find a given loss."""

    def __init__(self, name, seconds, loss):
        self.name, self.times, self.loss = name, iter(seconds), loss
        self.compile_seconds, self.memory_gb = None, 1.0

    def update(self, number, starting):
        return next(self.times), self.loss


def test_turns_are_timed_and_the_first_excess_is_compilation(source):
    of = settings(preset("o1", source))
    timings = take_turns(of, [Fake("a", [9, 1, 1, 2, 3], 1.0), Fake("b", [5, 5, 4, 4, 4], 1.0005)], 0.1, 3)
    assert [(t.name, t.median, t.compile_seconds) for t in timings] == [("a", 2, 6), ("b", 4, 1)]


def test_other_losses_are_not_timed(source):
    with pytest.raises(ConfigError, match=r"update 1 differ: 1\.000000 of a, 1\.200000 of b"):
        take_turns(settings(preset("o1", source)), [Fake("a", [1], 1.0), Fake("b", [1], 1.2)], 0.1, 3)


def test_the_rows_that_start_take_turns(source):
    of = settings(preset("o1", source))
    rows = of.data.global_batch_size
    assert turns.starting_rows(of, 0, 0.1).all() and not turns.starting_rows(of, 1, 0.0).any()
    begun = sum(turns.starting_rows(of, number, 0.2) for number in range(1, 1 + rows // 2))
    np.testing.assert_array_equal(begun, np.ones(rows))  # two of eight at a time
    assert turns.starting_rows(settings(preset("l1", source)), 5, 0.1).all()


def test_memory_that_is_taken_and_given_back_is_seen():
    taken = memory.peak_gb(lambda: np.ones(25_000_000).sum())
    assert taken is None or 0.19 < taken < 0.4
