"""TensorBoard: scalars, texts and pictures of a run, written by process 0 only."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tensorboardX import SummaryWriter


class Writer:
    """Event files in the run's folder; on every process but the first it does nothing."""

    def __init__(self, workdir: Path):
        self._events = SummaryWriter(str(workdir), flush_secs=10) if jax.process_index() == 0 else None

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Writes tag → value at `step` (batches finished)."""
        if self._events is not None:
            for tag, value in values.items():
                self._events.add_scalar(tag, value, step)

    def text(self, tag: str, content: str | dict[str, Any], step: int = 0) -> None:
        """Writes a text, or a dict as JSON."""
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
