"""TensorBoard: scalars, texts and pictures of a run, written by process 0 only.

Every run writes into its own folder and brings the same layout along, so `tensorboard --logdir=runs` lays the
runs over each other by topic, under "Custom Scalars", and lists their hyper-parameters under "HParams".
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tensorboardX import SummaryWriter
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.summary import hparams

HELD_OUT = "eval/pass@2"

# Topic → chart → tags.
LAYOUT = {
    "learning": {
        "exact accuracy (train)": ["train/exact_accuracy"],
        "exact accuracy of rows that halted (train)": ["train/halted_exact_accuracy"],
        "token accuracy (train)": ["train/accuracy"],
        "exact accuracy (held out)": ["eval/exact_accuracy"],
        "pass@2 (held out)": [HELD_OUT],
        "loss": ["train/loss", "train/lm_loss"],
    },
    "halting": {
        "mean ACT steps": ["train/steps"],
        "Q-head accuracy (train)": ["train/q_halt_accuracy"],
        "Q-head accuracy (held out)": ["eval/q_halt_accuracy"],
    },
    "encoder": {
        "collapse ratio (near 1: the context does not tell tasks apart)": ["train/encoder_collapse_ratio"],
        "variance over tasks": ["train/encoder_cross_sample_var"],
        "variance within a task": ["train/encoder_within_task_var"],
        "gradient norm": ["grad/encoder_norm"],
        "share of rows with gradient": ["train/encoder_grad_rows"],
        "KL": ["train/kl_loss"],
    },
    "speed": {
        "samples per second": ["perf/samples_per_s"],
        "milliseconds per step": ["perf/step_ms"],
        "waiting for data, ms": ["perf/data_wait_ms"],
    },
}


class Writer:
    """Event files in the run's folder; on every process but the first it does nothing."""

    def __init__(self, workdir: Path):
        self._events = SummaryWriter(str(workdir), flush_secs=10) if jax.process_index() == 0 else None

    def start(self, config: Mapping[str, Mapping[str, Any]]) -> None:
        """Writes the resolved config, as a text and as hyper-parameters, and the layout of the charts."""
        if self._events is None:
            return
        self.text("config", dict(config))
        flat = {f"{section}.{field}": value if isinstance(value, bool | int | float | str) else str(value)
                for section, fields in config.items() for field, value in fields.items()}
        for summary in hparams(flat, {HELD_OUT: 0.0}):
            self._events.file_writer.add_summary(summary)
        charts = {topic: {name: ["Multiline", tags] for name, tags in of_topic.items()}
                  for topic, of_topic in LAYOUT.items()}
        self._events.add_custom_scalars(charts)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes tag → value at `step` (batches finished), tags as they are: the library would rename pass@1."""
        if self._events is not None:
            summary = Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()])
            self._events.file_writer.add_summary(summary, step)

    def text(self, tag: str, content: str | Mapping[str, Any], step: int = 0) -> None:
        """Writes a text, or a mapping as JSON."""
        if self._events is not None:
            text = content if isinstance(content, str) else json.dumps(content, indent=2)
            self._events.add_text(tag, f"```\n{text}\n```", step)

    def image(self, tag: str, picture: np.ndarray, step: int) -> None:
        """Writes a picture (height, width, 3) uint8."""
        if self._events is not None:
            self._events.add_image(tag, picture, step, dataformats="HWC")

    def close(self) -> None:
        """Writes what is still buffered."""
        if self._events is not None:
            self._events.close()
