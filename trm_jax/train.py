"""▶ One training run: python -m trm_jax.train --config=configs/o1.py[:tiny] [--workdir=runs/o1]

Any field of the config can be set on the command line, e.g. --config.optim.lr=3e-4. Starting again in the same
--workdir continues the run exactly where its latest checkpoint stands.
"""

import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import ml_collections
from absl import app, flags, logging
from flax import nnx
from ml_collections import config_flags
from tqdm import tqdm

from trm_jax import settings as settings_lib
from trm_jax.act import batch_shapes
from trm_jax.arc.tasks import TaskError
from trm_jax.arc.voting import ATTEMPTS
from trm_jax.checkpoint import Checkpoints, abstract, check_same_model, saved_steps
from trm_jax.data import load_tasks, train_batches
from trm_jax.errors import ConfigError
from trm_jax.evaluation.diagnosis import diagnose
from trm_jax.evaluation.evaluator import Evaluator
from trm_jax.evaluation.pictures import watched
from trm_jax.evaluation.scoring import Tally
from trm_jax.evaluation.trained import PRETRAINED_FILE
from trm_jax.inference import compiled, compiled_measure
from trm_jax.mesh import (
    by_rows,
    check_divides,
    data_mesh,
    per_shard,
    replicated,
    start_processes,
    state_shardings,
    to_global,
)
from trm_jax.metrics import NonFiniteError
from trm_jax.models.etrm import ETRM, split
from trm_jax.optim import Optimiser
from trm_jax.pretrained import check_fits, held_out_note, read_manifest, restore_decoder
from trm_jax.progress import Progress
from trm_jax.settings import CONFIG_FILE, Settings
from trm_jax.state import TrainState, initial_state, parameter_counts
from trm_jax.steps import STEPS, Recipe
from trm_jax.writer import Writer

_CONFIG = config_flags.DEFINE_config_file("config", None, "Preset, e.g. configs/o1.py or configs/o1.py:tiny.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; runs/NAME-OF-PRESET where none is given.")


def train(config: ml_collections.ConfigDict, workdir: Path) -> TrainState:
    """Trains `config` in `workdir` to the end and returns the final state.

    Raises:
        ConfigError, TaskError: the input cannot be run; nothing has been written then.
        NonFiniteError: the loss or another metric stopped being finite.
    """
    # Start-up
    plain = json.loads(config.to_json())
    settings = settings_lib.from_dict(plain)
    check_same_model(workdir, plain)
    mesh = data_mesh()
    rows = settings.data.global_batch_size
    check_divides("data.global_batch_size", rows, mesh)
    pretrained = "" if saved_steps(workdir) else settings.train.load_pretrained_decoder
    if pretrained:  # for a run that starts; one that continues has it in its checkpoint
        check_fits(Path(pretrained), read_manifest(Path(pretrained)), settings.arch, settings.seq_len)
    main = jax.process_index() == 0

    # Data
    tasks = load_tasks(settings.data)
    total_steps = settings.steps(settings.train.epochs, len(tasks.train))
    last_step = min(total_steps, settings.train.max_steps or total_steps)
    eval_steps = settings.steps(settings.train.eval_interval, len(tasks.train))
    batches = train_batches(tasks.train, settings.data, seed=settings.train.seed,
                            max_demos=settings.encoder.max_demos, process_index=jax.process_index(),
                            process_count=jax.process_count())

    # Model and optimiser
    def make_model() -> ETRM:
        return ETRM(settings.arch, settings.encoder, settings.seq_len, nnx.Rngs(settings.train.seed))

    optimiser = Optimiser(settings.optim, total_steps)
    graph, _, _ = split(nnx.eval_shape(make_model))
    online = settings.mode.name == "online"
    carried = None if online else batch_shapes(rows, settings.encoder.max_demos, settings.seq_len)

    # Shardings
    def make_state() -> TrainState:
        return initial_state(make_model(), optimiser, settings.train.seed, carried)

    shapes = jax.eval_shape(make_state)
    shardings = state_shardings(mesh, shapes)

    # Evaluator and writer; from here on the run has a folder
    predict = compiled(mesh, graph, settings.eval.halt, settings.loss.type)
    evaluator = Evaluator(settings, mesh, predict, tasks.evaluation, tasks.all_evaluation)
    diagnosis = functools.partial(diagnose, settings, mesh, compiled_measure(mesh, graph), tasks.evaluation)
    workdir.mkdir(parents=True, exist_ok=True)
    checkpoints = Checkpoints(workdir, settings.checkpoint.keep)

    # Initialise or restore: (1) this run's latest checkpoint, (2) a pretrained decoder, (3) fresh
    if checkpoints.latest is not None:
        state, position = checkpoints.restore(abstract(shapes, shardings))
        batches.set_state(position)
        log = [f"continues {workdir} at step {int(state.step)}"]
    else:
        state = jax.jit(make_state, out_shardings=shardings)()
        log = ["starts from fresh parameters"]
        if pretrained:
            state, log = borrow_decoder(state, settings, pretrained)
    writer = Writer(workdir)
    if main:
        (workdir / CONFIG_FILE).write_text(json.dumps(plain, indent=2))
        if pretrained:
            note = {"held_out_note": held_out_note(read_manifest(Path(pretrained)))}
            (workdir / PRETRAINED_FILE).write_text(json.dumps(note))
    counts = parameter_counts(state.params)
    log += [*tasks.report, f"{len(tasks.train)} train tasks, {len(tasks.evaluation)} evaluation tasks",
            "parameters: " + ", ".join(f"{part} {count:,}" for part, count in counts.items()),
            f"{last_step} steps of {rows} rows on {mesh.size} {mesh.devices.flat[0].device_kind} device(s); "
            f"activations in {settings.arch.dtype}"]
    writer.start(plain)
    writer.text("parameters", counts)
    writer.text("log", "\n".join(log))
    if main:
        print("\n".join(log), flush=True)

    # Compile
    recipe = Recipe(graph, settings.mode, settings.loss, optimiser, per_shard(mesh))
    step = jax.jit(functools.partial(STEPS[settings.mode.name], recipe), donate_argnums=0,
                   in_shardings=(shardings, by_rows(mesh)), out_shardings=(shardings, replicated(mesh)))

    # Loop
    done = int(state.step)
    progress = Progress(settings, len(tasks.train), writer, done, last_step, show=main)
    scores: dict[str, float] | None = None
    try:
        while done < last_step:
            batch = progress.wait_for(batches)
            state, metrics = step(state, to_global(mesh, batch))
            done += 1
            progress.add(metrics)
            evaluating = done % eval_steps == 0 or done == total_steps
            saving = settings.checkpoint.every_steps and done % settings.checkpoint.every_steps == 0
            if evaluating or saving or done == last_step:
                progress.flush()
                scores = evaluate(evaluator, diagnosis, state, writer) if evaluating else None
                checkpoints.save(state, batches.get_state(), scores)
                progress.restart_clock()
        progress.flush()
    except NonFiniteError as error:
        last_good = "none" if checkpoints.latest is None else checkpoints.path(checkpoints.latest)
        raise NonFiniteError(f"{error}; last good checkpoint: {last_good}") from None
    finally:
        progress.close()
        checkpoints.close()
        writer.close()
    return state


def borrow_decoder(state: TrainState, settings: Settings, path: str) -> tuple[TrainState, list[str]]:
    """A fresh state with the decoder of the converted checkpoint `path`, also in its average; lines for the log."""
    params, buffers, log = restore_decoder(path, settings.arch, settings.seq_len, state.params, state.buffers)
    ema = None if state.ema is None else jax.tree.map(jax.numpy.copy, params)
    return state.replace(params=params, buffers=buffers, ema=ema), log


def evaluate(evaluator: Evaluator, diagnosis: Callable[..., dict[str, float]], state: TrainState,
             writer: Writer) -> dict[str, float]:
    """Scores the state's evaluation parameters, logs and prints the result."""
    tally, step, main = Tally(), int(state.step), jax.process_index() == 0
    with tqdm(total=len(evaluator.plan), desc="evaluate", unit="row", leave=False, disable=not main) as bar:
        for answers in evaluator.run(state.eval_params, state.buffers):
            tally.add(answers)
            bar.update(len(answers))
    tags, score = evaluator.tags(tally), evaluator.score(tally)
    collapse = diagnosis(state.eval_params, state.buffers, step)
    writer.scalars(step, tags | {f"eval/{name}": value for name, value in collapse.items()})
    for tag, picture in watched(evaluator.plan.tasks, tally.votes).items():
        writer.image(tag, picture, step)
    if main:
        tqdm.write(f"step {step}: " + ", ".join(f"{tag} {value:.3f}" for tag, value in tags.items()) +
                   f"; solved {score.solved[ATTEMPTS]} / evaluated {score.evaluated} / total {score.total} tasks")
    return tags


def parse_flags(argv: list[str]) -> list[str]:
    """Reads the command line; what is wrong with it is told in one line, without the libraries' tracebacks."""
    try:
        rest = flags.FLAGS(argv)
        _CONFIG.value.to_dict()  # a preset that could not be loaded says so at its first use only
        return rest
    except (flags.Error, AttributeError, KeyError, ValueError, TypeError, OSError, ImportError) as error:
        sys.exit(f"error: {str(error).strip().splitlines()[-1].strip()}")


def main(_: list[str]) -> None:
    file, _, size = config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")
    workdir = Path(_WORKDIR.value or f"runs/{Path(file).stem}{'-' + size if size else ''}")
    logging.set_verbosity(logging.WARNING)  # orbax tells of every file it writes
    try:
        start_processes()
        train(_CONFIG.value, workdir)
    except (ConfigError, TaskError, NonFiniteError) as error:
        sys.exit(f"error: {error}")
    print(f"done: {workdir}; look at it with: tensorboard --logdir={workdir.parent}")


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main, flags_parser=parse_flags)
