"""The rows of an embedding table: one for each of the fixed variants of each task."""

from collections.abc import Sequence

from trm_jax.data.arc.tasks import Task, TaskError


class Table:
    """`len(table)` rows; variant v of the task with index t has row t·variants + v.

    Args:
      tasks: those trained on, in the order of `Split.train`.
      variants: of each, the task itself included; see `augment.fixed_variants`.
    """

    def __init__(self, tasks: Sequence[Task], variants: int):
        self.variants = variants
        self._index = {task.id: index for index, task in enumerate(tasks)}

    def __len__(self) -> int:
        return len(self._index) * self.variants

    def row(self, task_id: str, variant: int) -> int:
        """Row of a variant of a task that `check` lets through."""
        return self._index[task_id] * self.variants + variant

    def known(self, tasks: Sequence[Task]) -> tuple[Task, ...]:
        """Those that have rows."""
        return tuple(task for task in tasks if task.id in self._index)

    def check(self, tasks: Sequence[Task], variants: int) -> None:
        """Raises TaskError unless there is a row for each of the first `variants` variants of these tasks."""
        missing = [task.id for task in tasks if task.id not in self._index]
        if missing:
            shown = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
            raise TaskError(f"{len(missing)} of {len(tasks)} tasks have no row in the embedding table ({shown}): such "
                            "a model answers only tasks whose demonstrations it was trained on "
                            "(data.evaluation_demos=True)")
        if variants > self.variants:
            raise TaskError(f"{variants} variants of each task are asked for, and the embedding table has rows for "
                            f"{self.variants} (data.variants): set eval.augmentations to at most {self.variants}")
