"""▶ One training run: python -m trm_jax.train --config=configs/o1.py[:tiny] [--workdir=runs/o1]

Any field of the config can be set on the command line, e.g. --config.optim.lr=3e-4. Starting again in the same
--workdir continues the run exactly where its latest checkpoint stands.
"""

import functools
import json
import math
import sys
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import jax
import ml_collections
from absl import app, flags, logging
from ml_collections import config_flags
from tqdm import tqdm

from trm_jax.beside import preset_file
from trm_jax.data.arc.table import Table
from trm_jax.data.arc.tasks import TaskError
from trm_jax.data.arc.voting import ATTEMPTS
from trm_jax.data.pipeline import train_batches
from trm_jax.data.split import load_tasks
from trm_jax.dynamics.metrics import NonFiniteError
from trm_jax.dynamics.optim import learning_rate
from trm_jax.dynamics.state import TrainState, parameter_counts
from trm_jax.errors import ConfigError
from trm_jax.evaluation.diagnosis import diagnose
from trm_jax.evaluation.evaluator import Evaluator
from trm_jax.evaluation.pictures import watched
from trm_jax.evaluation.protocol import protocol_of
from trm_jax.evaluation.scoring import Tally
from trm_jax.paths import user_path
from trm_jax.run import ancestry
from trm_jax.run import settings as settings_lib
from trm_jax.run.ancestry import Ancestor
from trm_jax.run.bar import Bar
from trm_jax.run.checkpoint import Checkpoints, SaveError
from trm_jax.run.files import make_folder, write
from trm_jax.run.interrupt import Interrupted, stop_request
from trm_jax.run.lock import locked
from trm_jax.run.machine import resolve
from trm_jax.run.mesh import (
    PROCESS_FLAGS,
    Agreement,
    check_divides,
    data_mesh,
    on_first,
    start_processes,
    to_global,
    together,
)
from trm_jax.run.profile import Profile
from trm_jax.run.programs import compiled, compiled_measure, make_step
from trm_jax.run.progress import Progress
from trm_jax.run.record import RECORD_FILE, Origin, check_tasks, record
from trm_jax.run.saved import saved_steps
from trm_jax.run.settings import CONFIG_FILE, Settings
from trm_jax.run.stalls import Stalls
from trm_jax.run.start import restore, starting_point
from trm_jax.run.startup import keep_programs, use_cores
from trm_jax.run.writer import Writer

_CONFIG = config_flags.DEFINE_config_file("config", None, "Preset, e.g. configs/o1.py or configs/o1.py:tiny.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; runs/NAME-OF-PRESET where none is given.")
_PROFILE = flags.DEFINE_string("profile", None, "START:STOP, steps to trace for TensorBoard's profiler.")
_PROCESSES: list[flags.FlagHolder] = [
    (flags.DEFINE_integer if kind is int else flags.DEFINE_string)(name.replace("_", "-"), None, text)
    for name, (kind, text) in PROCESS_FLAGS.items()]


def train(config: ml_collections.ConfigDict, workdir: Path, origin: Origin | None = None,
          profile: str | None = None) -> TrainState:
    """Trains `config` in `workdir` to the end and returns the final state.

    Args:
        origin: what the config was made from, for run.json.
        profile: "START:STOP", steps to trace.

    Raises:
        ConfigError, TaskError: the input cannot be run; nothing has been written then.
        NonFiniteError: the loss or another metric stopped being finite.
        SaveError: checkpoints could not be written for too long.
        Interrupted: a signal asked it to stop; everything has been saved then.
    """
    with ExitStack() as held:  # the folder, as soon as there is one
        return _train(config, workdir, origin or Origin(), Profile(profile, workdir), held)


def _train(config: ml_collections.ConfigDict, workdir: Path, origin: Origin, profile: Profile,
           held: ExitStack) -> TrainState:
    # Start-up
    plain = json.loads(config.to_json())
    settings = settings_lib.from_dict(plain)
    resuming = bool(saved_steps(workdir))
    plain, changed = settings_lib.continued(workdir, plain) if resuming else (plain, [])
    before = settings_lib.read(workdir)["train"]["epochs"] if resuming else 0
    mesh = data_mesh()
    rows = settings.data.global_batch_size
    check_divides("data.global_batch_size", rows, mesh)
    settings, chosen = resolve(settings, mesh)
    main = jax.process_index() == 0

    # Data
    tasks = load_tasks(settings.data)
    if resuming:
        check_tasks(workdir, tasks)
    total_steps = settings.steps(settings.train.epochs, len(tasks.train))
    last_step = min(total_steps, settings.train.max_steps or total_steps)
    eval_steps = settings.steps(settings.train.eval_interval, len(tasks.train))
    batches = train_batches(tasks.train, settings.data, seed=settings.train.seed,
                            max_demos=settings.encoder.max_demos, process_index=jax.process_index(),
                            process_count=jax.process_count())

    # Model, optimiser and step
    training = make_step(settings, mesh, len(tasks.train))

    # Evaluator
    predict = compiled(mesh, training.graph, settings.eval.halt, settings.loss.type)
    table = Table(tasks.train, settings.data.variants) if settings.embeds_tasks else None
    scored = tasks.evaluation if table is None else table.known(tasks.evaluation)
    evaluator = (Evaluator(settings, mesh, predict, scored, tasks.all_evaluation, table)
                 if scored or table is None else None)  # a table that knows training tasks only cannot be scored
    diagnosis = functools.partial(diagnose, settings, mesh, compiled_measure(mesh, training.graph), scored, table)

    # Initialise or restore: (1) this run's latest whole checkpoint, (2) other trained weights, (3) fresh.
    # A fresh run gets its folder only now that nothing can be wrong with its input.
    start = None if resuming else fresh_state(training.init, settings)
    make_folder("--workdir", workdir)
    on_first(lambda: held.enter_context(locked("--workdir", workdir)))
    checkpoints = Checkpoints(workdir, say=say, **{name: getattr(settings.checkpoint, name) for name in (
        "keep", "every_minutes", "give_up_minutes")})
    if resuming and (restored := checkpoints.restore(training.state)):
        state, position = restored
        batches.set_state(position)
        log = [f"continues {workdir} at step {int(state.step)}", *changed,
               *jump(settings, settings.steps(before, len(tasks.train)), total_steps, int(state.step))]
        descent, _ = ancestry.read(workdir)
    else:
        state, descent, log = start or fresh_state(training.init, settings)
    protocol = protocol_of(tasks.evaluation, settings.data, descent, bool(settings.train.init_from))

    # Writer
    writer = Writer(workdir, int(state.step), say)
    if main:
        write(workdir / CONFIG_FILE, settings_lib.as_text(plain))
        recorded = record(origin, plain, settings, tasks, mesh, protocol.word)
        write(workdir / RECORD_FILE, json.dumps(recorded, indent=2))
        if not resuming and descent:
            write(workdir / ancestry.ANCESTRY_FILE, ancestry.as_text(descent))
    counts = parameter_counts(state.params)
    log += [*tasks.report, f"scores on evaluation tasks are: {protocol.word}", *protocol.notes,
            f"{len(tasks.train)} train tasks, {len(scored)} evaluation tasks" + (
                "" if evaluator else ": none of them has a row in the embedding table, so that nothing is scored"),
            "parameters: " + ", ".join(f"{part} {count:,}" for part, count in counts.items()),
            f"{last_step} steps of {rows} rows on {mesh.size} {mesh.devices.flat[0].device_kind} device(s)",
            *chosen]
    writer.start(plain)
    writer.text("parameters", counts)
    writer.text("log", "\n".join(log))
    say("\n".join(log))

    # Loop
    done = int(state.step)
    progress = Progress(settings, len(tasks.train), writer, done, last_step, show=main)
    agree = Agreement(mesh)
    signal_number = 0

    with (stop_request() as stop, closing(Stalls(settings.train.stall_minutes)) as stalls, closing(writer),
          closing(checkpoints), closing(progress), closing(profile)):
        def asked_to_stop() -> bool:
            nonlocal signal_number
            stalls.restart()
            signal_number, = agree(stop.signal)
            return signal_number > 0

        try:
            while True:
                # A state is saved before it is scored: an evaluation that is broken off costs no training.
                due = done > 0 and (done % eval_steps == 0 or done == total_steps)
                unscored = evaluator is not None and due and not checkpoints.scored(done)
                if evaluator is not None and unscored and not signal_number:
                    scores = evaluate(evaluator, diagnosis, state, writer, protocol.word, asked_to_stop)
                    if scores is not None:
                        checkpoints.add_scores(done, scores)
                        unscored = False
                    progress.restart_clock()
                if signal_number or done == last_step:
                    break
                batch = progress.wait_for(batches)
                state, metrics = training.step(state, to_global(mesh, batch))
                done += 1
                progress.add(metrics)
                profile.finished(done, metrics)
                stalls.restart()
                checkpoints.watch()
                signal_number, saving = agree(stop.signal, checkpoints.due)
                every = settings.checkpoint.every_steps
                if (saving or signal_number or done % eval_steps == 0 or done == last_step
                        or (every and done % every == 0)):
                    progress.flush()
                    checkpoints.save(state, batches.get_state())
                    progress.restart_clock()
            progress.flush()
            if done == last_step:
                checkpoints.finish(state, batches.get_state())
            if done == last_step and not unscored:
                writer.finish()
        except NonFiniteError as error:
            checkpoints.watch(wait=True)
            last_good = "none" if checkpoints.latest is None else checkpoints.path(checkpoints.latest)
            raise NonFiniteError(f"{error}; last good checkpoint: {last_good}") from None
    if done < last_step or unscored:
        latest = checkpoints.latest
        kept = "with a checkpoint" if latest == done else f"which could not be saved: the latest checkpoint is {latest}"
        raise Interrupted(signal_number, f"stopped after step {done} of {last_step}, {kept}; the same command "
                                         "continues")
    return state


def fresh_state(init: Callable[[], TrainState],
                settings: Settings) -> tuple[TrainState, tuple[Ancestor, ...], list[str]]:
    """The state before the first batch, with trained weights where the settings name some, and their descent; lines
    for the log."""
    found = starting_point(settings)
    state = init()
    if found is None:
        return state, (), ["starts from fresh parameters"]
    params, buffers, log = restore(*found, state.params, state.buffers)
    ema = None if state.ema is None else jax.tree.map(jax.numpy.copy, params)
    return state.replace(params=params, buffers=buffers, ema=ema), found[1].descent, log


def jump(settings: Settings, before: int, total_steps: int, step: int) -> list[str]:
    """Says so where another number of steps than `before` moves the schedule under a run that continues at `step`."""
    there, here = (float(learning_rate(settings.optim, steps)(step)) for steps in (before, total_steps))
    if math.isclose(there, here, rel_tol=1e-3):
        return []
    return [f"another number of epochs moves the schedule: the learning rate goes from {there:.3g} to {here:.3g} at "
            f"step {step}; with optim.lr_min_ratio=1 it would not"]


def evaluate(evaluator: Evaluator, diagnosis: Callable[..., dict[str, float]], state: TrainState, writer: Writer,
             protocol: str, asked_to_stop: Callable[[], bool]) -> dict[str, float] | None:
    """Scores the state's evaluation parameters, logs and prints the result; None where it was asked to stop."""
    tally, step, main = Tally(), int(state.step), jax.process_index() == 0
    with Bar(len(evaluator.plan), "evaluate", "row", show=main, keep=False) as bar:
        for answers in evaluator.run(state.eval_params, state.buffers):
            tally.add(answers)
            bar.update(len(answers))
            if asked_to_stop():
                return None
    tags, score = evaluator.tags(tally), evaluator.score(tally)
    collapse = diagnosis(state.eval_params, state.buffers, step)
    writer.scalars(step, tags | {f"eval/{name}": value for name, value in collapse.items()})
    for tag, picture in watched(evaluator.plan.tasks, tally.votes).items():
        writer.image(tag, picture, step)
    say(f"step {step}: " + ", ".join(f"{tag} {value:.3f}" for tag, value in tags.items()) +
        f"; {protocol}: solved {score.solved[ATTEMPTS]} / evaluated {score.evaluated} / total {score.total} tasks")
    return tags


def say(lines: str) -> None:
    """Prints to the log, on the first process, beside whatever bar is shown."""
    if jax.process_index() == 0:
        with suppress(OSError):  # the log may lie on a disk that is full
            tqdm.write(lines)
            sys.stdout.flush()


def parse_flags(argv: list[str]) -> list[str]:
    """Reads the command line; what is wrong with it is told in one line, without the libraries' tracebacks."""
    try:
        settings_lib.check_overrides(argv[1:])
        program, *stray = flags.FLAGS(with_preset_files(argv))
        if stray:
            raise ConfigError(f"what is {stray[0]!r} for? fields are set as --config.SECTION.FIELD=VALUE")
        _CONFIG.value.to_dict()  # a preset that could not be loaded says so at its first use only
        return [program]
    except (flags.Error, AttributeError, KeyError, ValueError, TypeError, OSError, ImportError) as error:
        sys.exit(f"error: {str(error).strip().splitlines()[-1].strip()}")


def with_preset_files(words: list[str]) -> list[str]:
    """The command line, with the file of a preset for its name: --config=o1:tiny works wherever it is given."""
    found = []
    for before, word in zip(["", *words], words, strict=False):
        flag, equals, value = word.partition("=")
        if flag in ("--config", "-config") and equals:
            word = f"{flag}={preset_file(value)}"
        found.append(preset_file(word) if before in ("--config", "-config") else word)
    return found


def main(_: list[str]) -> None:
    file, _, size = config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")
    origin = Origin(Path(file).stem, size, config_flags.get_override_values(flags.FLAGS["config"]))
    workdir = user_path(_WORKDIR.value or f"runs/{origin.preset}{'-' + size if size else ''}")
    logging.set_verbosity(logging.WARNING)  # orbax tells of every file it writes
    try:
        settings = settings_lib.from_dict(json.loads(_CONFIG.value.to_json()))
        keep_programs(workdir.parent)
        start_processes(*(flag.value for flag in _PROCESSES))
        use_cores(settings.data.global_batch_size, settings.eval.batch_size)
        with together():
            train(_CONFIG.value, workdir, origin, _PROFILE.value)
    except (ConfigError, TaskError, NonFiniteError, SaveError) as error:
        sys.exit(f"error: {error}")
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        sys.exit(stop.exit_code)
    say(f"done: {workdir}; look at it with: tensorboard --logdir={workdir.parent}")


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main, flags_parser=parse_flags)
