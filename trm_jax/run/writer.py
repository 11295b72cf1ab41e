"""TensorBoard: scalars, texts and pictures of a run, written by process 0 only.

Every run writes into its own folder and brings the same layout along, so `tensorboard --logdir=runs` lays the
runs over each other by topic, under "Custom Scalars", and lists their hyper-parameters under "HParams".
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from trm_jax import metric_table
from trm_jax.run import summaries
from trm_jax.run.events import EventFiles

FAILED = "failed"  # tag of the text that says why a run stopped


class Writer:
    """Event files in the run's folder; on every process but the first it does nothing.

    Args:
        done: batches finished; what an earlier process wrote of later ones is void.
        say: takes a line when events cannot be written; nothing here ever raises or waits for that.
    """

    def __init__(self, workdir: Path, done: int = 0, say: Callable[[str], None] = print):
        self._events = EventFiles(workdir, done + 1, say) if jax.process_index() == 0 else None

    def start(self, config: Mapping[str, Mapping[str, Any]]) -> None:
        """Writes the resolved config, as a text and as hyper-parameters, and the layout of the charts."""
        if self._events is None:
            return
        self.text("config", dict(config))
        flat = {f"{section}.{field}": value if isinstance(value, bool | int | float | str) else str(value)
                for section, fields in config.items() for field, value in fields.items()}
        self._events.add(summaries.hyper_parameters(flat))
        self._events.add(summaries.charts(metric_table.layout()))

    def finish(self) -> None:
        """Marks the run as one that has come to its end."""
        if self._events is not None:
            self._events.add(summaries.finished())

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes tag → value at `step` (batches finished)."""
        if self._events is not None:
            self._events.add(summaries.scalars(values), step)

    def text(self, tag: str, content: str | Mapping[str, Any], step: int = 0) -> None:
        """Writes a text, or a mapping as JSON."""
        if self._events is not None:
            shown = content if isinstance(content, str) else json.dumps(content, indent=2)
            self._events.add(summaries.text(tag, shown), step)

    def image(self, tag: str, picture: np.ndarray, step: int) -> None:
        """Writes a picture (height, width, 3) uint8."""
        if self._events is not None:
            self._events.add(summaries.image(tag, picture), step)

    def close(self) -> None:
        """Writes what is still buffered."""
        if self._events is not None:
            self._events.close()
