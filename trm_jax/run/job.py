"""What a start of a run is to do, checked before anything is written, and the record of it."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import jax

from trm_jax.data.split import Split, load_tasks
from trm_jax.dynamics.state import TrainState, parameter_counts
from trm_jax.errors import ConfigError
from trm_jax.run import ancestry, config_file, continuation
from trm_jax.run.ancestry import Ancestor
from trm_jax.run.files import write
from trm_jax.run.loop import Schedule
from trm_jax.run.machine import resolve
from trm_jax.run.mesh import Mesh, check_divides, data_mesh
from trm_jax.run.record import RECORD_FILE, TASKS_FILE, Origin, check_tasks, digests, record
from trm_jax.run.saved import saved_steps
from trm_jax.run.settings import Config, Settings, from_dict


@dataclasses.dataclass(frozen=True)
class Job:
    """One start of a run.

    Attributes:
        workdir: the run's folder.
        resuming: whether it holds checkpoints, so that this start continues.
        config: the whole config; settings: the same as it is computed with on the devices of `mesh`.
        tasks: of training and evaluation.
        schedule: in steps.
        changed, chosen: what was set otherwise at the last start, and what was chosen for this machine, as lines.
    """

    workdir: Path
    resuming: bool
    config: Config
    settings: Settings
    mesh: Mesh
    tasks: Split
    schedule: Schedule
    changed: list[str]
    chosen: list[str]

    @classmethod
    def of(cls, config: Config, workdir: Path) -> "Job":
        """What `config` describes, in this folder and on this machine.

        Raises:
            ConfigError, TaskError: it cannot be run, or the folder holds another run.
        """
        settings = from_dict(config)
        resuming = bool(saved_steps(workdir))
        config, changed = continuation.continued(workdir, config) if resuming else (config, [])
        mesh = data_mesh()
        check_divides("data.global_batch_size", settings.data.global_batch_size, mesh)
        settings, chosen = resolve(settings, mesh)
        tasks = load_tasks(settings.data)
        if resuming:
            check_tasks(workdir, tasks)
        return cls(workdir, resuming, config, settings, mesh, tasks, Schedule.of(settings, len(tasks.train)), changed,
                   chosen)

    def resumed(self, step: int) -> list[str]:
        """Lines that say what it means to go on from `step`."""
        before = config_file.read(self.workdir)["train"]["epochs"]
        jump = continuation.jump(self.settings.optim, self.settings.steps(before, len(self.tasks.train)),
                                 self.schedule.total, step)
        return [f"continues {self.workdir} at step {step}", *self.changed, *jump]

    def write(self, origin: Origin, descent: Sequence[Ancestor], protocol: str) -> None:
        """Writes config.json and run.json, and at the first start its tasks and what its weights come from.

        Raises:
            ConfigError: they cannot be written.
        """
        recorded = record(origin, self.config, self.settings, self.tasks, self.mesh, protocol)
        texts = {config_file.CONFIG_FILE: config_file.as_text(self.config),
                 RECORD_FILE: json.dumps(recorded, indent=2)}
        if not self.resuming or not (self.workdir / TASKS_FILE).exists():
            texts[TASKS_FILE] = json.dumps(digests(self.tasks), indent=1)
        if not self.resuming and descent:
            texts[ancestry.ANCESTRY_FILE] = ancestry.as_text(descent)
        try:
            for name, text in texts.items():
                write(self.workdir / name, text)
        except OSError as error:
            raise ConfigError(f"--workdir={self.workdir} cannot be written to ({error.strerror})") from None

    def lines(self, state: TrainState, scored: int) -> list[str]:
        """What is run, for the log; `scored`: number of evaluation tasks that it is scored on."""
        counts = ", ".join(f"{part} {count:,}" for part, count in self.parameters(state).items())
        device = self.mesh.devices.flat[0].device_kind
        return [f"{len(self.tasks.train)} train tasks, {scored} evaluation tasks" + (
                    "" if scored else ": none of them has a row in the embedding table, so that nothing is scored"),
                f"parameters: {counts}",
                f"{self.schedule.last} steps of {self.settings.data.global_batch_size} rows on {self.mesh.size} "
                f"{device} device(s)", *self.chosen]

    def parameters(self, state: TrainState) -> dict[str, int]:
        """Trained numbers of the encoder, or of the table in its place, of the decoder, and of both."""
        counts = parameter_counts(state.params)
        if not self.settings.embeds_tasks:
            return counts
        table = sum(leaf.size for leaf in jax.tree.leaves(state.buffers["encoder"]))
        return {"table": table, "decoder": counts["decoder"], "total": table + counts["decoder"]}
