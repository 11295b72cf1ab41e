"""Tasks: demonstration pairs and queries, checked once when they are read."""

import dataclasses
import functools
import hashlib
import itertools
from collections.abc import Callable, Iterable
from typing import Any

from trm_jax.data.arc import grids
from trm_jax.data.arc.augment import extent
from trm_jax.data.arc.grids import Grid, Shape


class TaskError(ValueError):
    """A source of tasks cannot be read. One line that names the file and, where there is one, the task."""


@dataclasses.dataclass(frozen=True, eq=False)
class Pair:
    """An input and its output; the output of a query is None where the answer is not known."""

    input: Grid
    output: Grid | None

    @property
    def shapes(self) -> list[Shape]:
        """Extents of the grids there are."""
        return [grid.shape for grid in (self.input, self.output) if grid is not None]

    @functools.cached_property
    def digest(self) -> str:
        """Digests of both grids; nothing after the bar where the output is not known."""
        return f"{grids.digest(self.input)}|{'' if self.output is None else grids.digest(self.output)}"


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """One original task: `demos`, all with output, and `queries`, at least one each.

    Or one without queries, of which any pair may be asked: as training sees a task leave one out, and as a generator
    of pairs (RE-ARC) gives it.
    """

    id: str
    demos: tuple[Pair, ...]
    queries: tuple[Pair, ...]

    @property
    def pairs(self) -> tuple[Pair, ...]:
        return self.demos + self.queries

    @property
    def answers(self) -> dict[int, Grid]:
        """The known answers by index of the query."""
        return {index: query.output for index, query in enumerate(self.queries) if query.output is not None}

    @property
    def answered(self) -> tuple[Pair, ...]:
        """All pairs whose output is known."""
        return tuple(pair for pair in self.pairs if pair.output is not None)

    @functools.cached_property
    def side(self) -> int:
        """Side of the smallest square canvas on which every grid of the task fits."""
        return max(extent([shape for pair in self.pairs for shape in pair.shapes]))

    @functools.cached_property
    def digest(self) -> str:
        """sha256 over all pairs in any order: equal for tasks of the same content, whatever their ids."""
        return hashlib.sha256("|".join(sorted(pair.digest for pair in self.pairs)).encode()).hexdigest()

    @functools.cached_property
    def question(self) -> str:
        """sha256 over all inputs in any order: equal for tasks that ask the same, whatever their ids and answers."""
        return hashlib.sha256("|".join(sorted(grids.digest(pair.input) for pair in self.pairs)).encode()).hexdigest()


def pair_digests(found: Iterable[Task]) -> dict[str, list[str]]:
    """Id → 16 hex digits for each answered pair of the task: by these a pair that was trained on is known again."""
    return {task.id: [pair_digest(pair) for pair in task.answered] for task in found}


def pair_digest(pair: Pair) -> str:
    return hashlib.sha256(pair.digest.encode()).hexdigest()[:16]


def asked(task: Task, side: int = grids.MAX_SIDE) -> Task:
    """A task to score: of a generator the first pair `of_size` is asked, and the others are demonstrations."""
    pairs = of_size(task, side).demos
    return task if task.queries else Task(task.id, pairs[1:], pairs[:1])


def of_size(task: Task, side: int) -> Task:
    """A generator of pairs with those that fit a side×side canvas, where enough do; another task as it is."""
    pairs = () if task.queries else tuple(pair for pair in task.demos if max(map(max, pair.shapes)) <= side)
    return leave_one_out(task.id, pairs) if len(pairs) > 2 else task


def leave_one_out(task_id: str, pairs: tuple[Pair, ...]) -> Task:
    """A task to train on of which each pair, all with output, may be asked with the others as demonstrations."""
    return Task(task_id, pairs, ())


@dataclasses.dataclass(frozen=True)
class Found:
    """The tasks of one place, by id, and why others of it were left out, one line each."""

    tasks: tuple[Task, ...]
    left_out: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class TaskSet:
    """What a source holds. Where it makes no split (`held_out` False), both sets are all of its tasks.

    Attributes:
      left_out: why tasks of it could not be read, one line each.
      version: what tells this edition of the tasks from others, where the source says so.
    """

    train: tuple[Task, ...]
    evaluation: tuple[Task, ...]
    held_out: bool = True
    left_out: tuple[str, ...] = ()
    version: str = ""


def no_split(found: Found) -> TaskSet:
    """The set of a place that does not say what to train on."""
    return TaskSet(found.tasks, found.tasks, held_out=False, left_out=found.left_out)


def two_parts(train: Found, evaluation: Found) -> TaskSet:
    return TaskSet(train.tasks, evaluation.tasks, left_out=train.left_out + evaluation.left_out)


def attempt(make: Callable[..., Task], *args: Any) -> Task | TaskError:
    """The task that `make(*args)` gives, or why it gives none."""
    try:
        return make(*args)
    except TaskError as error:
        return error


def gather(found: Iterable[Task | TaskError], place: str) -> Found:
    """Sorts by id, so that the order does not depend on the source's, and leaves out what is no task.

    Raises:
      TaskError: there is nothing but what is no task, or an id stands twice.
    """
    items = list(found)
    tasks = sorted((item for item in items if isinstance(item, Task)), key=lambda task: task.id)
    errors = [str(item) for item in items if isinstance(item, TaskError)]
    if errors and not tasks:
        raise TaskError(errors[0] + (f" (and {len(errors) - 1} more that cannot be read)" if errors[1:] else ""))
    for first, second in itertools.pairwise(tasks):
        if first.id == second.id:
            raise TaskError(f"{place}: task {first.id} stands there twice")
    return Found(tuple(tasks), tuple(errors))


def set_digest(tasks: Iterable[Task]) -> str:
    """The first 16 hex digits of a sha256 over ids and content: the same exactly for the same tasks."""
    return hashlib.sha256("".join(task.id + task.digest for task in tasks).encode()).hexdigest()[:16]


def parse(task_id: str, content: Any, place: str) -> Task:
    """Builds a task from ARC's form {"train": [{"input", "output"}, …], "test": [{"input", ["output"]}, …]}, or from
    RE-ARC's, a list of pairs of one generator, of which any may be asked.

    Args:
      content: nested lists or arrays.
      place: file (or source) for the error message.
    Raises:
      TaskError: another form, no demonstrations, no test inputs, or a grid that `grids.as_grid` refuses.
    """
    where = f"{place}: task {task_id}"
    if isinstance(content, list) and len(content) > 1:
        return leave_one_out(task_id, tuple(_pair(pair, f"{where}: [{i}]", answered=True)
                                            for i, pair in enumerate(content)))
    if not isinstance(content, dict):
        raise TaskError(f'{where}: not of the form {{"train": [pairs], "test": [pairs]}} or [pairs]')
    for part, noun in (("train", "demonstrations"), ("test", "test inputs")):
        if not isinstance(content.get(part), list) or not content[part]:
            raise TaskError(f'{where}: has no {noun} ("{part}" is missing or no list, or empty)')
    demos = [_pair(pair, f"{where}: train[{i}]", answered=True) for i, pair in enumerate(content["train"])]
    queries = [_pair(pair, f"{where}: test[{i}]", answered=False) for i, pair in enumerate(content["test"])]
    return Task(task_id, tuple(demos), tuple(queries))


def _pair(content: Any, where: str, answered: bool) -> Pair:
    """One pair; `answered` says that it must have an output."""
    if not isinstance(content, dict):
        raise TaskError(f'{where}: not of the form {{"input": grid, "output": grid}}')
    cells = {name: content.get(name) for name in ("input", "output")}
    found = {}
    for name, value in cells.items():
        if value is None:
            if name == "input" or answered:
                raise TaskError(f"{where}: has no {name}")
            continue
        try:
            found[name] = grids.as_grid(value)
        except ValueError as error:
            raise TaskError(f"{where}.{name}: {error}") from None
    return Pair(found["input"], found.get("output"))


def without_shared(
    train: tuple[Task, ...], evaluation: tuple[Task, ...]
) -> tuple[tuple[Task, ...], tuple[str, ...]]:
    """Drops the train tasks that also stand in the evaluation set, by id or by all their inputs.

    Answers have no say in it: they must not decide what is trained on.

    Returns:
      The tasks that stay, and the ids of those dropped.
    """
    ids, questions = {task.id for task in evaluation}, {task.question for task in evaluation}
    shared = [task.id in ids or task.question in questions for task in train]
    kept = tuple(task for task, drop in zip(train, shared, strict=True) if not drop)
    return kept, tuple(task.id for task, drop in zip(train, shared, strict=True) if drop)


def fitting(tasks: tuple[Task, ...], side: int) -> tuple[tuple[Task, ...], tuple[str, ...]]:
    """The tasks whose every grid fits a side×side canvas, and the ids of those that do not fit."""
    return (
        tuple(task for task in tasks if task.side <= side),
        tuple(task.id for task in tasks if task.side > side),
    )
