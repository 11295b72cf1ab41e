"""▶ One training run: python -m trm_jax.train --config=configs/o1.py[:tiny] [--workdir=runs/o1]

Any field of the config can be set on the command line, e.g. --config.optim.lr=3e-4. Starting again in the same
--workdir continues the run exactly where its latest checkpoint stands.
"""

import functools
import json
import sys
import time
from pathlib import Path
from typing import Any

import jax
import ml_collections
from absl import app, flags, logging
from flax import nnx
from ml_collections import config_flags
from tqdm import tqdm

from trm_jax import settings as settings_lib
from trm_jax.act import batch_shapes
from trm_jax.arc.tasks import TaskError
from trm_jax.checkpoint import Checkpoints, abstract, check_same_model
from trm_jax.data import load_tasks, train_batches
from trm_jax.errors import ConfigError
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
from trm_jax.metrics import Metrics, NonFiniteError, summarise
from trm_jax.models.etrm import ETRM, split
from trm_jax.optim import Optimiser
from trm_jax.scoring import Evaluator, Tally
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
    evaluator = Evaluator(mesh, graph, tasks.evaluation, settings.eval, loss_type=settings.loss.type,
                          side=settings.data.max_grid_size, max_demos=settings.encoder.max_demos,
                          seed=settings.train.seed)
    workdir.mkdir(parents=True, exist_ok=True)
    checkpoints = Checkpoints(workdir, settings.checkpoint.keep)

    # Initialise or restore: (1) this run's latest checkpoint, (2) fresh
    if checkpoints.latest is not None:
        state, position = checkpoints.restore(abstract(shapes, shardings))
        batches.set_state(position)
        log = [f"continues {workdir} at step {int(state.step)}"]
    else:
        state = jax.jit(make_state, out_shardings=shardings)()
        log = ["starts from fresh parameters"]
    writer = Writer(workdir)
    if main:
        (workdir / CONFIG_FILE).write_text(json.dumps(plain, indent=2))
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
    log_window = LogWindow(settings, len(tasks.train), writer, done, last_step, disable=not main)
    scores: dict[str, float] | None = None
    try:
        while done < last_step:
            batch = log_window.wait_for(batches)
            state, metrics = step(state, to_global(mesh, batch))
            done += 1
            log_window.add(metrics)
            evaluating = done % eval_steps == 0 or done == last_step
            saving = settings.checkpoint.every_steps and done % settings.checkpoint.every_steps == 0
            if evaluating or saving:
                log_window.flush()
                scores = evaluate(evaluator, state, writer) if evaluating else None
                checkpoints.save(state, batches.get_state(), scores)
                log_window.restart_clock()
        log_window.flush()
    except NonFiniteError as error:
        last_good = "none" if checkpoints.latest is None else checkpoints.path(checkpoints.latest)
        raise NonFiniteError(f"{error}; last good checkpoint: {last_good}") from None
    finally:
        log_window.close()
        checkpoints.close()
        writer.close()
    return state


def evaluate(evaluator: Evaluator, state: TrainState, writer: Writer) -> dict[str, float]:
    """Scores the state's evaluation parameters, logs and prints the result."""
    tally = Tally()
    for _ in tqdm(evaluator.run(state.eval_params, state.buffers, tally), total=evaluator.batch_count,
                  desc="evaluate", unit="batch", leave=False, disable=jax.process_index() != 0):
        pass
    tags = evaluator.tags(tally)
    writer.scalars(int(state.step), tags)
    score = evaluator.score(tally)
    if jax.process_index() == 0:
        first = min(score.pass_at)
        tqdm.write(f"step {int(state.step)}: eval accuracy {tags['eval/accuracy']:.3f}, exact "
                   f"{tags['eval/exact_accuracy']:.3f}, " + ", ".join(
                       f"pass@{k} {v:.3f}" for k, v in score.pass_at.items()) +
                   f"; solved {score.solved[first]} / evaluated {score.evaluated} / total {score.total} tasks")
    return tags


class LogWindow:
    """Collects metrics on the device and logs their mean every so many steps, a step late: no step waits for it."""

    def __init__(self, settings: Settings, groups: int, writer: Writer, done: int, last_step: int, disable: bool):
        self._every = settings.train.log_every_steps
        self._batch = settings.data.global_batch_size
        self._groups = groups
        self._writer = writer
        self._bar = tqdm(total=last_step, initial=done, unit="step", disable=disable, mininterval=1.0)
        self._step = done
        self._samples = 0.0
        self._window: list[Metrics] = []
        self._ready: tuple[int, list[Metrics], dict[str, float]] | None = None
        self.restart_clock()

    def restart_clock(self) -> None:
        """Leaves out of the speed what happened since the last step."""
        self._since, self._timed, self._waited = time.perf_counter(), 0, 0.0

    def wait_for(self, batches: Any) -> Any:
        """The next batch; the time it takes is what perf/data_wait_ms says."""
        start = time.perf_counter()
        batch = next(batches)
        self._waited += time.perf_counter() - start
        return batch

    def add(self, metrics: Metrics) -> None:
        """Takes the metrics of a step that has been started, and logs the window before it once that is full."""
        self._step += 1
        self._timed += 1
        self._window.append(metrics)
        self._bar.update()
        self._log()
        if self._step % self._every == 0:
            self._close_window()

    def flush(self) -> None:
        """Logs everything up to now."""
        self._log()
        if self._window:
            self._close_window()
        self._log()

    def close(self) -> None:
        """Ends the progress bar."""
        self._bar.close()

    def _close_window(self) -> None:
        jax.block_until_ready(self._window[0])  # at most a window of steps is in flight
        now = time.perf_counter()
        seconds = (now - self._since) / self._timed if self._timed else float("nan")
        speed = {"perf/step_ms": 1e3 * seconds, "perf/samples_per_s": self._batch / seconds,
                 "perf/data_wait_ms": 1e3 * self._waited / max(self._timed, 1)}
        self._ready = (self._step, self._window, speed)
        self._window = []
        self.restart_clock()

    def _log(self) -> None:
        if self._ready is None:
            return
        step, window, speed = self._ready
        self._ready = None
        values = summarise(step - len(window) + 1, jax.device_get(window))
        values.pop("samples", None)
        tags = {name if "/" in name else f"train/{name}": value for name, value in values.items()}
        tags["train/epoch"] = step * self._batch / self._groups
        self._writer.scalars(step, tags | speed)
        shown = {"loss": values["loss"], "exact": values["exact_accuracy"]}
        shown |= {"steps": values["steps"]} if "steps" in values else {}
        self._bar.set_postfix({name: f"{value:.3f}" for name, value in shown.items()} |
                              {"samples/s": f"{speed['perf/samples_per_s']:.1f}"})


def main(_: list[str]) -> None:
    config = _CONFIG.value
    preset = Path(flags.FLAGS["config"].config_filename.split(":")[0]).stem
    variant = flags.FLAGS["config"].config_filename.partition(":")[2]
    workdir = Path(_WORKDIR.value or f"runs/{preset}{'-' + variant if variant else ''}")
    logging.set_verbosity(logging.WARNING)  # orbax tells of every file it writes
    try:
        start_processes()
        train(config, workdir)
    except (ConfigError, TaskError, NonFiniteError) as error:
        sys.exit(f"error: {error}")
    print(f"done: {workdir}; look at it with: tensorboard --logdir={workdir.parent}")


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main)
