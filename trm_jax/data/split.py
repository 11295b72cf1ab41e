"""Which tasks a run trains on and which it is scored on."""

import dataclasses
import functools

from trm_jax.data.arc import augment, editions, grids, sources, tasks
from trm_jax.data.arc.editions import Edition
from trm_jax.data.arc.tasks import Task, TaskError, TaskSet
from trm_jax.errors import ConfigError, check_choice, check_numbers

QUERIES = ("test", "all")
MAX_NAMED = 5  # tasks that a line of the log spells out


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The `data` section; configs/base.py says what each field means."""

    source: str
    max_grid_size: int
    max_train_groups: int
    max_eval_groups: int
    training_tasks: bool
    evaluation_demos: bool
    queries: str
    augment: bool
    permute_colours: bool
    variants: int
    global_batch_size: int

    def __post_init__(self) -> None:
        check_choice("data.queries", self.queries, QUERIES)
        check_numbers("data", self, ["max_grid_size"], at_least=1, at_most=grids.MAX_SIDE)
        check_numbers("data", self, ["max_train_groups", "max_eval_groups"], at_least=0)
        check_numbers("data", self, ["variants"], at_least=0, at_most=augment.most_variants(self.permute_colours))
        check_numbers("data", self, ["global_batch_size"], at_least=1)
        if not self.training_tasks and not self.evaluation_demos:
            raise ConfigError("data.training_tasks=False leaves nothing to train on; set data.evaluation_demos=True")


@dataclasses.dataclass(frozen=True)
class Split:
    """The tasks of a run.

    Attributes:
      train: those to train on, with no more pairs than training may see; one without queries is asked leave one
        out. Training tasks come first, then evaluation tasks of which the demonstrations are trained on, both
        sorted by id: `Batch.task` numbers them, and the rows of a table follow this order.
      evaluation: those to score, sorted by id.
      all_evaluation: the whole evaluation set, with what was left out: the total to report beside a score.
      report: what was dropped or left out and why, one line each, for the log.
      edition: which evaluation set it is; notes: what has to be known to read a score on it.
    """

    train: tuple[Task, ...]
    evaluation: tuple[Task, ...]
    all_evaluation: tuple[Task, ...]
    report: tuple[str, ...]
    edition: Edition
    notes: tuple[str, ...]


def load_tasks(config: DataConfig) -> Split:
    """Reads `config.source`, drops what must not or cannot be used, and keeps the first groups in id order.

    No answer to a query of an evaluation task has a say in what is trained on, unless the source makes no split
    and its tasks are trained on as they are.

    Raises:
      TaskError: the source is unknown, missing or malformed, or holds no task to evaluate.
    """
    found = sources.load(config.source)
    report: list[str] = []
    edition = editions.edition(config.source, found.version, tuple(map(tasks.asked, found.evaluation)))
    notes = [*unreadable(found), *([edition.note] if edition.note else [])]
    if not found.evaluation:
        raise TaskError(f"{config.source} holds no evaluation task, only {len(found.train)} train tasks: a run is "
                        "scored on evaluation tasks; put some beside them")
    of_size = functools.partial(tasks.of_size, side=config.max_grid_size)
    found = dataclasses.replace(found, train=tuple(map(of_size, found.train)),
                                evaluation=tuple(map(of_size, found.evaluation)))
    train = _training_tasks(found, config, report) if config.training_tasks else ()
    if config.evaluation_demos:
        train += _evaluation_demos(found, config, report)
    evaluation = tuple(map(tasks.asked, found.evaluation))
    return Split(
        train=train,
        evaluation=_limit(evaluation, "evaluation", config.max_grid_size, config.max_eval_groups, report),
        all_evaluation=evaluation,
        report=(*report, f"evaluation set: {edition}", *notes),
        edition=edition,
        notes=tuple(notes),
    )


def unreadable(found: TaskSet) -> list[str]:
    """The line of a log that says which tasks of a source were left out because they could not be read."""
    reasons = found.left_out
    if not reasons:
        return []
    more = f"; and {len(reasons) - MAX_NAMED} more" if len(reasons) > MAX_NAMED else ""
    return [f"tasks that cannot be read: left out {len(reasons)} ({'; '.join(reasons[:MAX_NAMED])}{more})"]


def _training_tasks(found: TaskSet, config: DataConfig, report: list[str]) -> tuple[Task, ...]:
    """The training tasks, as `config.queries` asks them."""
    train = found.train
    if found.held_out or config.evaluation_demos:
        train, shared = tasks.without_shared(train, found.evaluation)
        if shared and found.held_out:
            report.append(f"train tasks that also stand in the evaluation set: dropped {', '.join(shared)}")
    else:
        if any(task.queries for task in train):
            report.append(f"{config.source} makes no split: evaluation tasks are train tasks, not held out")
        if not all(task.queries for task in train):
            report.append(f"{config.source} makes no split: one pair of each generator is kept to be asked when it is "
                          "scored, its others are trained on")
    if not found.held_out:
        train = tuple(task if task.queries else tasks.leave_one_out(task.id, task.demos[1:]) for task in train)
    if config.queries == "all":
        train = tuple(tasks.leave_one_out(task.id, task.answered) for task in train)
    else:
        unanswered = [task.id for task in train if task.queries and not task.answers]
        if unanswered:
            report.append(f"train tasks without any known answer: left out {', '.join(unanswered)}")
        train = tuple(task for task in train if not task.queries or task.answers)
    train = _leave_one_out(train, "train", report)
    return _limit(train, "train", config.max_grid_size, config.max_train_groups, report)


def _evaluation_demos(found: TaskSet, config: DataConfig, report: list[str]) -> tuple[Task, ...]:
    """Every evaluation task as far as training may see it: its demonstrations, leave one out.

    Neither a number nor a size of what is scored chooses among them: a run may be scored on more tasks later on.
    """
    seen = tuple(tasks.leave_one_out(task.id, tasks.asked(task).demos) for task in found.evaluation)
    shown = _leave_one_out(seen, "evaluation", report)
    shown = _limit(shown, "evaluation", config.max_grid_size, 0, report, noun="tasks' demonstrations")
    report.append(f"transductive: the demonstrations of {len(shown)} evaluation tasks are trained on, leave one out, "
                  "and none of their answers")
    return shown


def _leave_one_out(found: tuple[Task, ...], kind: str, report: list[str]) -> tuple[Task, ...]:
    """Those that keep a demonstration when a pair is asked; the report names the others."""
    single = [task.id for task in found if not task.queries and len(task.demos) < 2]
    if single:
        report.append(f"{kind} tasks with a single answered pair, of which none can be left out: not trained on "
                      f"{', '.join(single)}")
    return tuple(task for task in found if task.id not in single)


def _limit(found: tuple[Task, ...], kind: str, side: int, count: int, report: list[str],
           noun: str = "tasks") -> tuple[Task, ...]:
    """Keeps the first `count` tasks (0: all) that fit the canvas, and adds to the report."""
    fitting, too_large = tasks.fitting(found, side)
    if too_large:
        report.append(f"{len(too_large)} of {len(found)} {kind} {noun} do not fit {side}x{side}: left out")
    if 0 < count < len(fitting):
        report.append(f"the first {count} of {len(fitting)} {kind} {noun} are used")
    return fitting[: count or None]
