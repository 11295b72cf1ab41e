"""▶ One training run: python -m trm_jax.train --config=configs/o1.py[:tiny] [--workdir=runs/o1]

Any field of the config can be set on the command line, e.g. --config.optim.lr=3e-4. Starting again in the same
--workdir continues the run exactly where its latest checkpoint stands.
"""

import functools
import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import jax
import ml_collections
from absl import app, flags, logging
from ml_collections import config_flags
from tqdm import tqdm

from trm_jax.beside import preset_file
from trm_jax.data.arc.tasks import TaskError, pair_digests
from trm_jax.data.pipeline import train_batches
from trm_jax.dynamics.metrics import NonFiniteError
from trm_jax.dynamics.state import TrainState
from trm_jax.errors import ConfigError
from trm_jax.evaluation.protocol import protocol_of
from trm_jax.evaluation.validation import Validation
from trm_jax.paths import user_path
from trm_jax.run import ancestry
from trm_jax.run.ancestry import Ancestor
from trm_jax.run.checkpoint import Checkpoints, SaveError
from trm_jax.run.files import check_folder, make_folder
from trm_jax.run.interrupt import Interrupted, stop_request
from trm_jax.run.job import Job
from trm_jax.run.lock import locked
from trm_jax.run.loop import Loop
from trm_jax.run.mesh import PROCESS_FLAGS, on_first, start_processes, together
from trm_jax.run.overrides import check_overrides
from trm_jax.run.profile import Profile
from trm_jax.run.programs import Training, make_step
from trm_jax.run.progress import Progress
from trm_jax.run.record import Origin, ancestor
from trm_jax.run.settings import from_dict
from trm_jax.run.stalls import Stalls
from trm_jax.run.start import fresh_state
from trm_jax.run.startup import keep_programs, use_cores
from trm_jax.run.writer import Writer

_CONFIG = config_flags.DEFINE_config_file("config", None, "Preset, e.g. configs/o1.py or configs/o1.py:tiny.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; runs/NAME-OF-PRESET where none is given.")
_PROFILE = flags.DEFINE_string("profile", None, "START:STOP, steps to trace for TensorBoard's profiler.")
_PROCESSES: list[flags.FlagHolder] = [
    (flags.DEFINE_integer if kind is int else flags.DEFINE_string)(name.replace("_", "-"), None, text)
    for name, (kind, text) in PROCESS_FLAGS.items()]


def train(config: ml_collections.ConfigDict, workdir: Path, origin: Origin | None = None,
          profile: str | None = None, log: Sequence[str] = ()) -> TrainState:
    """Trains `config` in `workdir` to the end and returns the final state.

    Args:
        origin: what the config was made from, for run.json.
        profile: "START:STOP", steps to trace.
        log: lines that its log begins with.

    Raises:
        ConfigError, TaskError: the input cannot be run; nothing has been written then.
        NonFiniteError: the loss or another metric stopped being finite.
        SaveError: checkpoints could not be written for too long.
        Interrupted: a signal asked it to stop; everything has been saved then.
    """
    # Tasks, and the programs of a step and of an evaluation
    check_folder("--workdir", workdir)
    trace = Profile(profile, workdir)
    job = Job.of(json.loads(config.to_json()), workdir)
    settings, groups = job.settings, len(job.tasks.train)
    batches = train_batches(job.tasks.train, settings.data, seed=settings.train.seed,
                            max_demos=settings.encoder.max_demos, process_index=jax.process_index(),
                            process_count=jax.process_count())
    training = make_step(settings, job.mesh, groups)
    validation = Validation(settings, job.mesh, training.graph, job.tasks)

    # Initialise or restore: (1) this run's latest whole checkpoint, (2) other trained weights, (3) fresh.
    # A fresh run gets its folder only now that nothing can be wrong with its input.
    begun = None if job.resuming else fresh_state(training.init, settings)
    make_folder("--workdir", workdir)
    with ExitStack() as held:
        on_first(lambda: held.enter_context(locked("--workdir", workdir)))
        checkpoints = Checkpoints(workdir, keep=settings.checkpoint.keep,
                                  every_minutes=settings.checkpoint.every_minutes,
                                  give_up_minutes=settings.checkpoint.give_up_minutes, say=say)
        begun = (restored(job, checkpoints, training, batches) if job.resuming else begun) or \
            fresh_state(training.init, settings)
        state, descent, begins = begun

        # Write down what it is, and train
        itself = ancestor("the run", settings.data, pair_digests(job.tasks.train))
        protocol = protocol_of(job.tasks.evaluation, [*descent, itself], bool(settings.train.init_from))
        on_first(lambda: job.write(origin or Origin(), descent, protocol.word))
        untraced = trace.begin(int(state.step), job.schedule.last)
        writer = opened(job, state, [*log, *begins, *untraced, *job.tasks.report,
                                     f"scores on evaluation tasks are: {protocol.word}", *protocol.notes,
                                     *job.lines(state, len(validation.tasks))])
        progress = Progress(settings, groups, writer, int(state.step), job.schedule.last,
                            show=jax.process_index() == 0)
        score = functools.partial(validation.score, writer, protocol.word, say) if validation.tasks else None
        with (stop_request() as stop, closing(Stalls(settings.train.stall_minutes)) as stalls, closing(writer),
              closing(checkpoints), closing(progress), closing(trace), together()):
            state = Loop(training.step, job.mesh, job.schedule, batches, score, checkpoints, progress, trace, stalls,
                         stop).run(state)
            writer.finish()
        return state


def restored(job: Job, checkpoints: Checkpoints, training: Training,
             batches: Any) -> tuple[TrainState, tuple[Ancestor, ...], list[str]] | None:
    """The state of the run's latest whole checkpoint, where `batches` go on too; its descent; lines for the log."""
    found = checkpoints.restore(training.state)
    if found is None:
        return None
    state, position = found
    batches.set_state(position)
    return state, ancestry.read(job.workdir)[0], job.resumed(int(state.step))


def opened(job: Job, state: TrainState, log: list[str]) -> Writer:
    """The run's event files, which begin with its config and its log."""
    writer = Writer(job.workdir, int(state.step), say)
    writer.start(job.config)
    writer.text("parameters", job.parameters(state))
    writer.text("log", "\n".join(log))
    say("\n".join(log))
    return writer


def say(lines: str) -> None:
    """Prints to the log, on the first process, beside whatever bar is shown."""
    if jax.process_index() == 0:
        with suppress(OSError):  # the log may lie on a disk that is full
            tqdm.write(lines)
            sys.stdout.flush()


def parse_flags(argv: list[str]) -> list[str]:
    """Reads the command line; what is wrong with it is told in one line, without the libraries' tracebacks."""
    try:
        check_overrides(argv[1:])
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
        settings = from_dict(json.loads(_CONFIG.value.to_json()))
        keep_programs(workdir.parent)
        start_processes(*(flag.value for flag in _PROCESSES))
        use_cores(settings.data.global_batch_size, settings.eval.batch_size)
        with together():
            train(_CONFIG.value, workdir, origin, _PROFILE.value)
    except (ConfigError, TaskError, NonFiniteError, SaveError, OSError) as error:
        sys.exit(f"error: {error}")
    except Interrupted as stop:
        with suppress(OSError):  # the terminal may be gone
            print(stop, file=sys.stderr, flush=True)
        sys.exit(stop.exit_code)
    say(f"done: {workdir}; look at it with: tensorboard --logdir={workdir.parent}")


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main, flags_parser=parse_flags)
