"""Seconds of comparing two runs with large event files, O1 and L1, as a whole process.

    python -m benchmarks.compare [--megabytes=50]

The runs never took place: every metric that the comparison knows is written at every step, one scalar
per record, which is the most that a folder of that size can hold. Writing them takes longer than comparing them.
"""

import importlib
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from absl import app, flags
from tqdm import tqdm

from trm_jax.metric_table import METRICS
from trm_jax.run.writer import Writer

_MEGABYTES = flags.DEFINE_integer("megabytes", 50, "Size of each run's event file.")
RECORD_BYTES = 58  # of one scalar, on average


def write_run(folder: Path, preset: str, megabytes: int) -> int:
    """Writes a run of `preset` and returns the number of its records."""
    folder.mkdir()
    (folder / "config.json").write_text(importlib.import_module(f"configs.{preset}").get_config().to_json())
    tags = [metric.tag for metric in METRICS if preset == "o1" or metric.tag != "train/steps"]
    steps = round(megabytes * 1e6 / RECORD_BYTES / len(tags))
    values = np.random.default_rng(0).random((steps, len(tags)))
    values *= np.linspace(0, 1, steps)[:, None]
    writer = Writer(folder)
    for step in tqdm(range(steps), desc=f"write {preset}", unit="step"):
        for tag, value in zip(tags, values[step], strict=True):
            writer.scalars(step + 1, {tag: value})
    writer.close()
    return steps * len(tags)


def main(_: list[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name) / preset for preset in ("o1", "l1")]
        records = [write_run(folder, folder.name, _MEGABYTES.value) for folder in folders]
        sizes = [sum(file.stat().st_size for file in folder.glob("events.*")) / 1e6 for folder in folders]
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "trm_jax.compare", *map(str, folders), f"--out={name}/report"],
                       check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - start
    for folder, size, count in zip(folders, sizes, records, strict=True):
        print(f"{folder.name}: {size:.0f} MB, {count:,} records")
    print(f"comparison: {seconds:.1f} s")


if __name__ == "__main__":
    app.run(main)
