"""A run's checkpoints: written in the background, resumed exactly, and read beside the training."""

import contextlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from trm_jax.dynamics.state import TrainState
from trm_jax.errors import ConfigError
from trm_jax.run import arrays, saved
from trm_jax.run.files import make_folder
from trm_jax.run.mesh import from_first, on_first
from trm_jax.run.reasons import reason
from trm_jax.run.saved import Damaged, saved_steps

Tree = Any
RETRY_S = 10.0  # between a save that failed and the next trial


class SaveError(Exception):
    """The run could not be saved for too long."""


class Checkpoints:
    """The checkpoints of a run, in `workdir`/checkpoints: the latest `keep`, and the best by held-out score.

    A checkpoint holds the whole TrainState and the position in the data, with checksums. It is written in the
    background; a save that fails is told in a line, the run goes on, and the next save is due soon.

    Args:
        every_minutes: between saves that are due by time; 0 for none.
        give_up_minutes: for so long saves may fail.
        say: takes lines for the log.

    Raises:
        ConfigError: nothing can be written there.
    """

    def __init__(self, workdir: Path, *, keep: int = 2, every_minutes: float = 0.0, give_up_minutes: float = 0.0,
                 say: Callable[[str], None] = print):
        self._workdir, self._keep, self._say = workdir, keep, say
        self._every_s, self._give_up_s = 60 * every_minutes, 60 * give_up_minutes
        self._writer = arrays.Background(self._seal)
        self._begun_at = time.monotonic()  # when the last save, or this process, began
        self._saving: int | None = None  # the step that is being written
        self._failing_since: float | None = None  # None while saves succeed
        self._told = ""  # why they fail
        on_first(lambda: make_folder("--workdir", saved.folder_of(workdir)))
        if jax.process_index() == 0:
            saved.clear(workdir)

    def save(self, state: TrainState, data_position: dict[str, Any]) -> None:
        """Begins to save; a checkpoint of this step that is already there stays.

        Raises:
            SaveError: see `watch`.
        """
        step = int(state.step)
        self.watch(wait=True)
        self._begun_at = time.monotonic()
        if from_first(self.path(step).exists()):
            return
        self._saving = step
        try:
            self._writer.save(self.path(step), state, data_position)
        except Exception as error:  # whatever the file system and the libraries raise
            self._failed(error)

    def watch(self, *, wait: bool = False) -> None:
        """Learns what has become of the last save; costs nothing and belongs into every step.

        Args:
            wait: until it is over.

        Raises:
            SaveError: no save has succeeded for `give_up_minutes`.
        """
        if self._saving is None:
            return
        try:
            self._writer.check(wait=wait)
            if not wait and not self.path(self._saving).exists():
                return
            if self._failing_since is not None:
                self._say(f"checkpoint of step {self._saving} written: saving works again")
            self._saving, self._failing_since, self._told = None, None, ""
            if jax.process_index() == 0:
                with contextlib.suppress(OSError):  # one that stays costs room only
                    saved.prune(self._workdir, self._keep)
        except Exception as error:
            self._failed(error)

    @property
    def due(self) -> bool:
        """Whether it is time to save: again after a save that failed, or since the last one."""
        wait = self._every_s if self._failing_since is None else RETRY_S
        return bool(wait) and self._saving is None and time.monotonic() - self._begun_at >= wait

    def finish(self, state: TrainState, data_position: dict[str, Any]) -> None:
        """Saves the last state, if need be again and again. Raises SaveError where that did not work in time."""
        while True:
            self.save(state, data_position)
            self.watch(wait=True)
            if from_first(self._failing_since is None):
                return
            time.sleep(RETRY_S)

    def add_scores(self, step: int, values: Mapping[str, float]) -> None:
        """Stores held-out scores with the checkpoint of `step`, once that is written."""
        self.watch(wait=True)
        if jax.process_index() == 0 and self.path(step).exists():
            try:
                saved.add_scores(self._workdir, step, values)
            except OSError as error:
                self._say(f"the scores of step {step} could not be stored with its checkpoint ({error.strerror})")

    def scored(self, step: int) -> bool:
        """Whether the checkpoint of `step` has its scores."""
        return bool(from_first(step in saved.scores(self._workdir)))

    def restore(self, like: TrainState) -> tuple[TrainState, dict[str, Any]] | None:
        """State and data position of the latest checkpoint that is whole, with the shardings of `like`; None for none.

        Damaged ones are set aside.

        Args:
            like: arrays, or shapes with shardings, of the run's state.

        Raises:
            ConfigError: it is another version's, or cannot be read.
        """
        while (step := from_first(self._whole_step() if jax.process_index() == 0 else None)) is not None:
            try:
                return self._read(self.path(step), like)
            except Damaged as damage:  # without checksums only reading tells
                if jax.process_count() > 1:
                    raise ConfigError(f"checkpoint {self.path(step)} cannot be read: {damage}") from None
                self._set_aside(step, damage)
        return None

    @property
    def latest(self) -> int | None:
        """Step of the latest checkpoint that has been written, None without any."""
        return max(saved_steps(self._workdir), default=None)

    def path(self, step: int) -> Path:
        """Folder of the checkpoint of `step`."""
        return saved.folder_of(self._workdir) / str(step)

    def close(self) -> None:
        """Waits until everything is written."""
        self.watch(wait=True)
        self._writer.close()

    def _seal(self) -> None:
        """Called by the first process when all files of a checkpoint are there and its name is not."""
        assert self._saving is not None
        path = self.path(self._saving)
        saved.seal(path.with_name(path.name + saved.UNFINISHED), self._saving)

    def _failed(self, error: Exception) -> None:
        step, self._saving = self._saving, None
        now = time.monotonic()
        self._failing_since = now if self._failing_since is None else self._failing_since
        if jax.process_index() == 0:
            saved.clear(self._workdir)
        latest = "there is none before it" if self.latest is None else f"the latest is of step {self.latest}"
        why = reason(error)
        line = f"the checkpoint of step {step} could not be written ({why}); {latest}"
        if now - self._failing_since >= self._give_up_s:
            raise SaveError(f"{line}; given up after {self._give_up_s / 60:g} minutes (checkpoint.give_up_minutes)")
        if why != self._told:
            self._say(f"{line}; the run goes on and tries again")
        self._told = why

    def _whole_step(self) -> int | None:
        """The latest step whose checkpoint is as it was written; those after it are set aside."""
        for step in reversed(saved_steps(self._workdir)):
            try:
                saved.check(self.path(step))
                return step
            except Damaged as damage:
                self._set_aside(step, damage)
        return None

    def _set_aside(self, step: int, damage: Damaged) -> None:
        try:
            there = saved.set_aside(self.path(step))
        except OSError as error:
            raise ConfigError(f"checkpoint {self.path(step)} is damaged ({damage}) and cannot be set aside "
                              f"({error.strerror}): rename or remove it") from None
        self._say(f"checkpoint {step} is damaged ({damage}): set aside as {there}")

    def _read(self, folder: Path, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
        state, position = self._writer.restore(folder, like)
        if int(state.step) != int(folder.name):
            raise Damaged(f"it is a copy of step {int(state.step)}")
        return state, position


def restore_fields(workdir: Path, which: str, like: dict[str, Tree]) -> tuple[int, dict[str, Tree], list[str]]:
    """Some fields of the TrainState of a run, without writing anything; a training beside it may go on.

    Args:
        which: a step in digits, "latest", or "best" by held-out score. Of the latter two, damaged ones are passed by.
        like: name of the field → shapes with shardings.

    Returns:
        The checkpoint's step, the fields, and lines about damaged checkpoints.

    Raises:
        ConfigError: there is no such checkpoint, or the one asked for is damaged.
    """
    while True:
        chosen, log = saved.choose(workdir, which)
        step = from_first(chosen)
        assert step is not None
        folder = saved.folder_of(workdir) / str(step)
        try:
            return step, arrays.load_fields(folder, like), log
        except arrays.READING as error:
            if folder.exists() or which.isdecimal():  # else a training has deleted it: choose again
                raise ConfigError(f"checkpoint {folder} cannot be read: {reason(error)}") from None


def save_fields(workdir: Path, step: int, fields: dict[str, Tree]) -> None:
    """Writes a checkpoint of some fields of a TrainState: enough to evaluate, not to train on."""
    folder = saved.folder_of(workdir) / str(step)
    arrays.save_fields(folder, fields)
    saved.seal(folder, step)
