"""▶ What a preset's training step asks of an NVIDIA GPU, found out on a machine that has none.

    python -m benchmarks.gpu_program --config=configs/o1.py [--rows=256] [--devices=4] [--memory-gb=80] [--json]

Compiles the step for the H100 (needs the `cuda12` extra, no GPU; about a minute) and says how much memory it takes on
each device and whether that fits, which of its matrix products are not in bfloat16, whether its attention is cuDNN's
fused one, and what the devices send each other. Fields are set as in training: --config.SECTION.FIELD=VALUE.

    python -m benchmarks.gpu_program --table=o1,r1,l1,e1,e2,e3 [--settings=none,dots,full,full/4]

prints which of these presets, at their own number of rows, fits which card with which arch.remat; behind a slash stands
train.microbatches. Each is compiled for the largest card, and again for a smaller one where that program does not fit,
since XLA recomputes of its own accord what would not.
"""

import importlib
import itertools
import json
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # XLA tells of what it cannot make fit; so does this program

import jax
from absl import app, flags
from ml_collections import ConfigDict, config_flags

from benchmarks.gpu_step import compile_step, report
from benchmarks.workload import parse_flags
from trm_jax.errors import ConfigError

_CONFIG = config_flags.DEFINE_config_file("config", None, "Preset whose training step is compiled.")
_ROWS = flags.DEFINE_integer("rows", None, "Rows of a batch over all devices; the preset's where none are given.",
                             lower_bound=1)
_DEVICES = flags.DEFINE_integer("devices", 1, "Cards that share the batch.", lower_bound=1)
_MEMORY_GB = flags.DEFINE_float("memory-gb", 80, "Memory of a card, in 10⁹ bytes.", lower_bound=1)
_FRACTION = flags.DEFINE_float("memory-fraction", 0.75, "Share of it that JAX takes: XLA_CLIENT_MEM_FRACTION.",
                               lower_bound=0.01, upper_bound=1)
_TABLE = flags.DEFINE_list("table", [], "Presets, by name, to print a table of.")
_SETTINGS = flags.DEFINE_list("settings", ["none", "dots", "full", "full/4"], "Its settings: REMAT or REMAT/PARTS.")
_JSON = flags.DEFINE_bool("json", False, "One line of JSON.")


CARDS_GB = (24, 48, 80, 141)


def print_table(fraction: float) -> None:
    """A row for each preset and setting, as soon as it is known. Raises ConfigError."""
    cards = "".join(f" {card} GB |" for card in CARDS_GB)
    print(f"| preset | rows | `arch.remat` | `train.microbatches` | needed GB |{cards}")
    print("|" + "---|" * (5 + len(CARDS_GB)))
    for name, setting in itertools.product(_TABLE.value, _SETTINGS.value):
        config = importlib.import_module(f"configs.{name}").get_config()
        remat, _, parts = setting.partition("/")
        config.arch.remat = remat
        config.train.microbatches = int(parts or 1)
        fits, needed_gb = fitting_cards(config, fraction)
        print(f"| {name} | {config.data.global_batch_size} | {remat} | {parts or 1} | {needed_gb:.1f} | "
              f"{' | '.join('yes' if card in fits else '–' for card in CARDS_GB)} |", flush=True)


def fitting_cards(config: ConfigDict, fraction: float) -> tuple[list[int], float]:
    """The cards that a step fits, and what it needs where there is room, 10⁹ bytes."""
    largest = found = compile_step(config, _DEVICES.value, CARDS_GB[-1], fraction * CARDS_GB[-1])
    fits = []
    for card in reversed(CARDS_GB):
        if found.needed_gb > fraction * card and card != CARDS_GB[-1]:
            found = compile_step(config, _DEVICES.value, card, fraction * card)
        if found.needed_gb > fraction * card:
            break
        fits.append(card)
    return fits, largest.needed_gb


def main(_: list[str]) -> None:
    jax.config.update("jax_platforms", "cpu")  # a GPU that is there stays untouched
    if _TABLE.value:
        try:
            print_table(_FRACTION.value)
        except (ConfigError, ImportError, ValueError) as error:
            sys.exit(f"error: {error}")
        return
    if _CONFIG.value is None:
        sys.exit("error: give a preset with --config=configs/NAME.py, or several with --table=NAME,NAME")
    config, pool_gb = ConfigDict(_CONFIG.value), _FRACTION.value * _MEMORY_GB.value
    if _ROWS.value is not None:
        config.data.global_batch_size = _ROWS.value
    try:
        found = compile_step(config, _DEVICES.value, _MEMORY_GB.value, pool_gb)
    except (ConfigError, NotImplementedError) as error:
        sys.exit(f"error: {error}")
    if _JSON.value:
        print(json.dumps(found.plain(pool_gb)))
        return
    name = config_flags.get_config_filename(flags.FLAGS["config"])
    print(f"{name}, {config.data.global_batch_size} rows on {_DEVICES.value} × {_MEMORY_GB.value:g} GB "
          f"(compiled for the H100, jax {jax.__version__})")
    print(report(found, pool_gb))


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
