"""The rows of an embedding table: one for each variant of each task that it was trained on."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from trm_jax.data.arc import augment, npy_folder
from trm_jax.data.arc.augment import Variant
from trm_jax.data.arc.tasks import Task, TaskError, pair_digest

NAMES_FILE = "identifiers.json"  # of a dataset folder of the PyTorch project, and beside a table that came from there
BLANK = "<blank>"  # what that project calls row 0, of no task


class Table:
    """`len(table)` rows; variant v of the task with index t has row t·variants + v.

    Args:
      trained_on: what `pair_digests` says of the tasks trained on, in the order of `Split.train`.
      variants: of each, the task itself included; see `augment.fixed_variants`.
    """

    def __init__(self, trained_on: Mapping[str, Sequence[str]], variants: int):
        self._trained_on = {task_id: frozenset(pairs) for task_id, pairs in trained_on.items()}
        self._rows: dict[str, Sequence[int]] = {
            task_id: range(index * variants, (index + 1) * variants) for index, task_id in enumerate(trained_on)}
        self._length = len(trained_on) * variants

    def __len__(self) -> int:
        return self._length

    @property
    def most(self) -> int:
        """Variants of the task that has the most."""
        return max(map(len, self._rows.values()), default=0)

    def held(self, task_id: str) -> int:
        """Variants of a task that have a row; 0 for a task without any."""
        return len(self._rows.get(task_id, ()))

    def row(self, task_id: str, variant: int) -> int:
        """Row of a variant of a task, of the `held` ones."""
        return self._rows[task_id][variant]

    def variants(self, task_id: str, count: int, seed: int, colours: bool = True) -> list[Variant]:
        """The first `count` variants of a task, in the order of their numbers; see `augment.fixed_variants`."""
        return augment.fixed_variants(task_id, count, seed, colours)

    def names(self, seed: int) -> list[str]:
        """Of all rows: ID|||t<transform>|||<colours>, or the bare ID of the task itself."""
        return [variant.name(task_id) if number else task_id for task_id in self._rows
                for number, variant in enumerate(self.variants(task_id, self.held(task_id), seed))]

    def known(self, tasks: Sequence[Task]) -> tuple[Task, ...]:
        """Those that have rows: their demonstrations, and not only their ids, are those trained on."""
        return tuple(task for task in tasks if self._knows(task))

    def _knows(self, task: Task) -> bool:
        shown = set(map(pair_digest, task.demos))
        return bool(shown) and task.id in self._rows and self._trained_on[task.id] >= shown

    def check(self, tasks: Sequence[Task], variants: int) -> None:
        """Raises TaskError where one of these tasks has no row, or none in the table so many."""
        missing = [task.id for task in tasks if not self._knows(task)]
        if missing:
            shown = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
            others = sum(map(bool, map(self.held, missing)))
            raise TaskError(f"{len(missing)} of {len(tasks)} tasks have no row in the embedding table ({shown}): such "
                            "a model answers only tasks whose demonstrations it was trained on "
                            "(data.evaluation_demos=True)" + f"; {others} have the id of another task" * bool(others))
        if variants > self.most:
            raise TaskError(f"{variants} variants of each task are asked for, and the embedding table has rows for "
                            f"{self.most} (data.variants): set eval.augmentations to at most {self.most}")


class NamedTable(Table):
    """A table whose rows have names, ID|||t<transform>|||<colours> or the bare ID of the task itself, as the PyTorch
    project trains it. Tasks may have different numbers of variants, in the order of their rows, the task itself first.

    Args:
      names: of all rows.
    """

    def __init__(self, names: Sequence[str]):
        rows: dict[str, list[int]] = {}
        for row, name in enumerate(names):
            if name != BLANK:
                rows.setdefault(name.partition(augment.SEPARATOR)[0], []).append(row)
        for task_id, of_task in rows.items():
            of_task.sort(key=lambda row: names[row] != task_id)
        self._names, self._rows, self._length = names, dict(rows), len(names)

    def _knows(self, task: Task) -> bool:
        return task.id in self._rows  # no pair of what it was trained on is known

    @property
    def tasks(self) -> int:
        """How many tasks have rows."""
        return len(self._rows)

    def variants(self, task_id: str, count: int, seed: int, colours: bool = True) -> list[Variant]:
        """Raises TaskError where a name is not of the form above."""
        try:
            return [augment.parse(self._names[row])[1] for row in self._rows[task_id][:count]]
        except ValueError as error:
            raise TaskError(f"{NAMES_FILE}: {error}") from None

    def names(self, seed: int) -> list[str]:
        return list(self._names)

    def check_names(self) -> None:
        """Raises TaskError where any name is not of the form above."""
        for task_id in self._rows:
            self.variants(task_id, len(self), seed=0)


def read_names(file: Path, rows: int) -> NamedTable:
    """The names in the JSON file of a table with so many rows.

    Raises:
      TaskError: it is missing, no list of names, or another table's.
    """
    names = npy_folder.read_names(file)
    if len(names) != rows:
        raise TaskError(f"{file} names {len(names):,} rows and the table of puzzle embeddings has {rows:,}: it is not "
                        "that of the dataset folder that the checkpoint was trained on")
    return NamedTable(names)
