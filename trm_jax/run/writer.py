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
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.summary import custom_scalars, hparams, image, text

from trm_jax import metric_table
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
        """Writes the resolved config, as a text and as hyper-parameters, and the layout of the charts.

        The list of an experiment's hyper-parameters is left out: TensorBoard then makes it of all the runs, those
        in which they differ first, with every scalar as a metric.
        """
        if self._events is None:
            return
        self.text("config", dict(config))
        flat = {f"{section}.{field}": value if isinstance(value, bool | int | float | str) else str(value)
                for section, fields in config.items() for field, value in fields.items()}
        _, session, self._success = hparams(flat, {})
        self._events.add(session)
        charts = {topic: {name: ["Multiline", tags] for name, tags in of_topic.items()}
                  for topic, of_topic in metric_table.layout().items()}
        self._events.add(custom_scalars(charts))

    def finish(self) -> None:
        """Marks the run as one that has come to its end."""
        if self._events is not None:
            self._events.add(self._success)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes tag → value at `step` (batches finished), tags as they are: the library would rename pass@1."""
        if self._events is not None:
            summary = Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()])
            self._events.add(summary, step)

    def text(self, tag: str, content: str | Mapping[str, Any], step: int = 0) -> None:
        """Writes a text, or a mapping as JSON."""
        if self._events is not None:
            shown = content if isinstance(content, str) else json.dumps(content, indent=2)
            self._events.add(text(tag, f"```\n{shown}\n```"), step)

    def image(self, tag: str, picture: np.ndarray, step: int) -> None:
        """Writes a picture (height, width, 3) uint8."""
        if self._events is not None:
            self._events.add(image(tag, picture, dataformats="HWC"), step)

    def close(self) -> None:
        """Writes what is still buffered."""
        if self._events is not None:
            self._events.close()
