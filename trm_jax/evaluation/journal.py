"""The answers of one evaluation on disk, appended batch by batch, so that it can be interrupted and continued.

A JSON value per line. The first says which evaluation this is, each further one is the `Answer` of one row, in
the order of rows: {"row": 0, "vote": [task id, query, variant, grid, q_halt], "metrics": {…}}. After a latent search
the vote and metrics without it stand there too: "without_search": {"vote": […], "metrics": {…}}.
"""

import dataclasses
import itertools
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from trm_jax.errors import ConfigError
from trm_jax.evaluation.scoring import Answer


class Journal:
    """The answers in `file`, which need not exist yet.

    Args:
        evaluation: JSON values that tell this evaluation from others.
        writes: whether this process does; the others only read.
    """

    def __init__(self, file: Path, evaluation: dict[str, Any], writes: bool):
        self.file = file
        self._evaluation = evaluation
        self._writes = writes

    def resume(self, batch_size: int, rows: int) -> Iterator[Answer]:
        """The answers to go on from: those of whole batches, or all `rows`. What stands behind them is cut off.

        A line that was being written when the process stopped counts as not written.

        Raises:
            ConfigError: the file holds another evaluation, or something else.
        """
        if not self.file.exists():
            return iter(())
        with self.file.open("rb") as file:
            ends = list(itertools.accumulate(len(line) for line in file if line.endswith(b"\n")))
            file.seek(0)
            if ends:
                self._check(file.readline())
        found = max(len(ends) - 1, 0)
        kept = found if found == rows else found // batch_size * batch_size
        if self._writes:
            os.truncate(self.file, ends[kept] if ends else 0)
        return self._read(kept)

    def append(self, answers: Iterable[Answer]) -> None:
        """Writes one batch of answers, and the first line where there is none yet."""
        if not self._writes:
            return
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("a", encoding="utf-8") as file:
            if not file.tell():
                file.write(json.dumps(self._evaluation) + "\n")
            for answer in answers:
                told = {name: value for name, value in dataclasses.asdict(answer).items() if value is not None}
                file.write(json.dumps(told, allow_nan=False, separators=(",", ":")) + "\n")

    def _check(self, line: bytes) -> None:
        """Raises ConfigError unless `line` names this evaluation."""
        there = self._parse(line, 1)
        here = json.loads(json.dumps(self._evaluation))  # tuples are lists there
        if not isinstance(there, dict) or there.keys() != here.keys():
            raise ConfigError(f"{self.file} is no file of predictions of this version; choose another --out")
        differences = [f"{name}: {there[name]!r} there, {value!r} here"
                       for name, value in here.items() if there[name] != value]
        if differences:
            raise ConfigError(f"{self.file} holds another evaluation ({'; '.join(differences)}); "
                              "choose another --out, or delete the file")

    def _read(self, count: int) -> Iterator[Answer]:
        with self.file.open("rb") as file:
            for number, line in enumerate(itertools.islice(file, 1, 1 + count), start=2):
                try:
                    yield Answer(**self._parse(line, number))
                except TypeError:
                    raise self._damaged(number) from None

    def _parse(self, line: bytes, number: int) -> Any:
        try:
            return json.loads(line)
        except ValueError:
            raise self._damaged(number) from None

    def _damaged(self, number: int) -> ConfigError:
        return ConfigError(f"{self.file}: line {number} is damaged; delete the file to start over")
