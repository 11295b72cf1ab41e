"""Step time and memory of a preset's training step, packed against dense, and of every encoder against `standard`.

    python -m benchmarks.step_time --config=configs/r1.py:tiny --steps=20 [--encoders | --dense]

All variants run in this one process, in turn, and each figure is the median of its steps; only ratios should be
compared between machines. Dense means that every demonstration slot holds a demonstration as far as the encoder
can tell, which is what encoding without packing costs.
"""

import importlib
import json
import statistics
import time

import jax
import jax.numpy as jnp
from absl import app, flags
from ml_collections import config_flags

from benchmarks.turns import load_batches
from benchmarks.workload import settings_of, training_step
from trm_jax.dynamics.act import Batch
from trm_jax.dynamics.state import parameter_counts
from trm_jax.run import settings as settings_lib
from trm_jax.run.machine import resolve
from trm_jax.run.mesh import data_mesh, to_global
from trm_jax.run.settings import Settings

# Whose layers an encoder is timed with.
PRESETS = {"standard": "o1", "hybrid_standard": "e1", "hybrid_variational": "e2", "lpn_standard": "e3",
           "lpn_variational": "e3"}

_CONFIG = config_flags.DEFINE_config_file("config", "configs/r1.py:tiny", "Preset to time.")
_STEPS = flags.DEFINE_integer("steps", 10, "Timed steps of each variant, after two that are not.")
_ENCODERS = flags.DEFINE_bool("encoders", False, "Time every encoder, with the layers of its own preset.")
_DENSE = flags.DEFINE_bool("dense", False, "Time with and without packing.")


class Timed:
    """One variant, compiled, that runs a step at a time."""

    def __init__(self, settings: Settings, batches: list[Batch]):
        mesh = data_mesh()
        settings, self.chosen = resolve(settings, mesh)
        step = training_step(settings, mesh)
        self.state = step.init()
        self.counts = parameter_counts(self.state.params)
        self.batches = [to_global(mesh, batch) for batch in batches]
        start = time.perf_counter()
        self.step = step.step.lower(self.state, self.batches[0]).compile()
        self.compile_seconds = time.perf_counter() - start
        self.temporary_bytes = self.step.memory_analysis().temp_size_in_bytes
        self.seconds: list[float] = []

    def run(self, i: int, timed: bool) -> None:
        start = time.perf_counter()
        self.state, metrics = self.step(self.state, self.batches[i % len(self.batches)])
        jax.block_until_ready(metrics)
        if timed:
            self.seconds.append(time.perf_counter() - start)


def variants(config, settings: Settings, batches: list[Batch]) -> dict[str, Timed]:
    """Name → what to time; the first is what the others are compared with."""
    if _ENCODERS.value and _DENSE.value:
        raise app.UsageError("--encoders and --dense are two comparisons: one at a time")
    if _ENCODERS.value:
        size = config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")[2]
        made = {}
        for kind, preset in PRESETS.items():
            plain = json.loads(config.to_json())
            encoder = importlib.import_module(f"configs.{preset}").get_config(size).encoder
            slots = config.encoder.max_demos  # the batches' own
            plain["encoder"] = json.loads(encoder.to_json()) | {"type": kind, "max_demos": slots}
            plain["loss"]["kl_weight"] = 1e-4 if "variational" in kind else 0.0
            made[kind] = Timed(settings_lib.from_dict(plain), batches)
        return made
    made = {"packed": Timed(settings, batches)}
    if _DENSE.value:
        full = [batch.__class__(**(vars(batch) | {"demo_mask": jnp.ones_like(batch.demo_mask)})) for batch in batches]
        made["dense"] = Timed(settings, full)
    return made


def main(_: list[str]) -> None:
    config = _CONFIG.value
    settings = settings_of(config)
    batches = load_batches(settings)
    filled = sum(float(batch.demo_mask.mean()) for batch in batches) / len(batches)
    print(f"{len(jax.devices())} × {jax.devices()[0].device_kind}, jax {jax.__version__}; "
          f"{settings.data.global_batch_size} rows, {filled:.0%} of the demonstration slots filled")
    made = variants(config, settings, batches)
    for i in range(_STEPS.value + 2):
        for timed in made.values():
            timed.run(i, i >= 2)
    first = statistics.median(next(iter(made.values())).seconds)
    print(f"{'variant':20} {'encoder':>12} {'decoder':>12} {'ms/step':>9} {'ratio':>6} {'compile s':>9} {'temp MB':>9}")
    for name, timed in made.items():
        median = statistics.median(timed.seconds)
        print(f"{name:20} {timed.counts['encoder']:12,} {timed.counts['decoder']:12,} {1e3 * median:9.1f} "
              f"{median / first:6.2f} {timed.compile_seconds:9.1f} {timed.temporary_bytes / 1e6:9.1f}")


if __name__ == "__main__":
    app.run(main)
