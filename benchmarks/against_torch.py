"""▶ Training updates of trm_jax against PyTorch's: same weights, same rows, taking turns in one process.

    python -m benchmarks.against_torch --config=configs/o1.py[:tiny] [--rows=10] [--starting=0.1] [--pairs=5] [--json]

The opponent is the PyTorch reference in tools/torch_reference with fused attention, or with --etrm=FOLDER a checkout of
the PyTorch project, whose model and loss are taken as they are. --torch=compile puts it under torch.compile,
--torch=both times it both ways. Before anything is timed all sides make two updates and must agree on their losses.

In steady state a share of the rows starts at each update of the original dynamics: --starting, a tenth by default,
rounded up to whole rows. Useful operations are those of benchmarks/flops.py; the peak they are a share of is the best
matrix product of this very run in the type of the activations.
"""

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from absl import app, flags
from ml_collections import config_flags

from benchmarks import flops
from benchmarks.jax_side import JaxSide, product_peak
from benchmarks.turns import CHECKED, Timing, load_batches, starting_rows, take_turns
from benchmarks.workload import needs_torch, parse_flags, start
from trm_jax.data.arc.tasks import TaskError
from trm_jax.dynamics.act import Batch
from trm_jax.errors import ConfigError
from trm_jax.run.settings import Settings

FORMS = {"eager": [False], "compile": [True], "both": [False, True]}  # under torch.compile or not

_CONFIG = config_flags.DEFINE_config_file("config", None, "Preset to time, e.g. configs/r1.py:tiny.")
_ROWS = flags.DEFINE_integer("rows", None, "Rows of a batch; the preset's where none are given.", lower_bound=1)
_STARTING = flags.DEFINE_float("starting", 0.1, "Share of the rows that start at an update (original dynamics).",
                               lower_bound=0, upper_bound=1)
_PAIRS = flags.DEFINE_integer("pairs", 5, "Timed updates of each side.", lower_bound=1)
_TORCH = flags.DEFINE_enum("torch", "eager", list(FORMS), "How PyTorch runs.")
_ETRM = flags.DEFINE_string("etrm", None, "Folder of a checkout of the PyTorch project, in place of the reference.")
_FRESH_ONLY = flags.DEFINE_bool("fresh-only", False, "With encode='once' PyTorch encodes only the rows that start; the "
                                                     "PyTorch project encodes every row as soon as one does.")
_JSON = flags.DEFINE_bool("json", False, "One line of JSON.")


def opponent(settings: Settings) -> Callable[..., Any]:
    """What makes the side that the flags name. Raises ConfigError where PyTorch or the checkout cannot be had."""
    if settings.embeds_tasks:
        raise ConfigError(f"encoder.type={settings.encoder.type!r} has no counterpart in the PyTorch reference")
    with needs_torch():
        import torch

        from benchmarks.torch_side import TorchSide
    if jax.default_backend() == "gpu" and not torch.cuda.is_available():
        raise ConfigError("JAX runs on a GPU that PyTorch does not see; JAX_PLATFORMS=cpu compares on the CPU")
    if _ETRM.value is None:
        return TorchSide
    from benchmarks.etrm_side import side_of

    return side_of(_ETRM.value, settings)


def useful_operations(settings: Settings, batches: list[Batch], share: float) -> float:
    """Of a sample: a row and the update it takes part in, in online mode all its updates."""
    if settings.mode.name == "online":
        demos = float(np.mean([batch.demo_mask.sum(axis=1).mean() for batch in batches]))
        return settings.mode.num_act_steps * flops.update(settings, 1.0, demos)
    every = settings.mode.encode == "every_step"
    encoded = 1.0 if every else float(starting_rows(settings, CHECKED, share).mean())
    demos = encoded * float(np.mean([batch.demo_mask.sum(axis=1).mean() for batch in batches]))
    return flops.update(settings, encoded, demos)


def table(timings: Sequence[Timing], rows: int, operations: float, peak: float) -> str:
    """Markdown; `operations` are useful ones of a sample, `peak` operations a second of matrix products."""
    lines = ["| | samples/s | ms an update | compile s | memory GB | of the peak | ratio |", "|" + "---|" * 7]
    for timing in timings:
        memory = "–" if timing.memory_gb is None else f"{timing.memory_gb:.2f}"
        lines.append(f"| {timing.name} | {rows / timing.median:.2f} | {1e3 * timing.median:,.1f} | "
                     f"{timing.compile_seconds:.1f} | {memory} | {rows * operations / timing.median / peak:.0%} | "
                     f"{timing.median / timings[0].median:.2f} |")
    return "\n".join(lines)


def plain(timings: Sequence[Timing], rows: int, operations: float, peak: float) -> dict[str, Any]:
    """What --json prints: PyTorch is the faster of its forms."""
    ours, theirs = timings[0], min(timings[1:], key=lambda timing: timing.median)
    return {
        "ratio": theirs.median / ours.median,
        "trm_jax_seconds": ours.median,
        "pytorch_seconds": theirs.median,
        "rows": rows,
        "useful_operations_a_sample": operations,
        "product_peak": peak,
        "sides": [{"name": t.name, "seconds": t.median, "samples_per_s": rows / t.median,
                   "compile_seconds": t.compile_seconds, "memory_gb": t.memory_gb,
                   "of_peak": rows * operations / t.median / peak} for t in timings],
    }


def main(_: list[str]) -> None:
    try:
        settings, mesh, where = start(_CONFIG.value, _ROWS.value)
        make, batches = opponent(settings), load_batches(settings)
        ours = JaxSide(settings, mesh, batches)
        theirs = [make(settings, ours.weights, batches, compiled=compiled, every_row=not _FRESH_ONLY.value)
                  for compiled in FORMS[_TORCH.value]]
        timings = take_turns(settings, [ours, *theirs], _STARTING.value, _PAIRS.value)
    except (ConfigError, TaskError) as error:
        sys.exit(f"error: {error}")
    rows, operations = settings.data.global_batch_size, useful_operations(settings, batches, _STARTING.value)
    peak = product_peak(mesh, settings.arch.dtype)
    if _JSON.value:
        print(json.dumps(plain(timings, rows, operations, peak)))
        return
    started = "" if settings.mode.name == "online" else (
        f", {starting_rows(settings, CHECKED, _STARTING.value).sum()} of them starting at each update")
    print(f"{config_flags.get_config_filename(flags.FLAGS['config'])}: {rows} rows{started}; {where}; "
          f"{operations / 1e9:,.2f} useful GFLOP a sample; peak of matrix products {peak / 1e9:,.0f} GFLOP/s\n")
    print(table(timings, rows, operations, peak))


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main, flags_parser=parse_flags)
