"""The training loop: a step, what is logged of it, and when the run is saved, scored and stopped."""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from trm_jax.dynamics.metrics import NonFiniteError
from trm_jax.dynamics.state import TrainState
from trm_jax.run.checkpoint import Checkpoints
from trm_jax.run.interrupt import BrokenOff, Interrupted, StopRequest
from trm_jax.run.mesh import Agreement, Mesh, to_global
from trm_jax.run.profile import Profile
from trm_jax.run.progress import Progress
from trm_jax.run.settings import Settings
from trm_jax.run.stalls import Stalls

# (state, called after each batch) → held-out scores; what the latter raises breaks the evaluation off.
Score = Callable[[TrainState, Callable[[], None]], Mapping[str, float]]


@dataclasses.dataclass(frozen=True)
class Schedule:
    """When what happens, in steps, which are batches.

    Attributes:
        total: of the whole run.
        last: after which this start ends: `total`, unless train.max_steps comes first.
        between_scores: from one evaluation to the next.
        between_saves: from one checkpoint to the next besides those at evaluations, 0 for none.
    """

    total: int
    last: int
    between_scores: int
    between_saves: int

    @classmethod
    def of(cls, settings: Settings, groups: int) -> "Schedule":
        """That of a run on `groups` tasks."""
        total = settings.steps(settings.train.epochs, groups)
        return cls(total, min(total, settings.train.max_steps or total),
                   settings.steps(settings.train.eval_interval, groups), settings.checkpoint.every_steps)

    def scores(self, done: int) -> bool:
        """Whether the state after `done` steps is scored."""
        return done > 0 and (done % self.between_scores == 0 or done == self.total)

    def saves(self, done: int) -> bool:
        """Whether the state after `done` steps is saved in any case: one that is scored is."""
        return (done == self.last or done % self.between_scores == 0
                or (self.between_saves > 0 and done % self.between_saves == 0))


class Loop:
    """One start of a run, from the state that it has to its last step.

    Args:
        step: (state, batch) → (state, metrics), compiled at its first call.
        batches: the iterator, where the state stands.
        score: None where there is nothing to score.
    """

    def __init__(self, step: Any, mesh: Mesh, schedule: Schedule, batches: Any, score: Score | None,
                 checkpoints: Checkpoints, progress: Progress, profile: Profile, stalls: Stalls, stop: StopRequest):
        self._step, self._mesh, self._schedule, self._batches, self._score = step, mesh, schedule, batches, score
        self._checkpoints, self._progress, self._profile = checkpoints, progress, profile
        self._stalls, self._stop, self._agreement = stalls, stop, Agreement(mesh)
        self._begun = self._done = 0
        self._signal = 0  # on all processes the same
        self._unscored = False  # whether the state ought to have scores and has none

    def run(self, state: TrainState) -> TrainState:
        """Trains to the last step, with everything saved and scored.

        Raises:
            Interrupted: a signal asked it to stop; everything has been saved.
            NonFiniteError: the loss or another metric stopped being finite.
            SaveError: checkpoints could not be written for too long.
        """
        self._begun = self._done = int(state.step)
        self._stop.parting = self._parting
        try:
            self._evaluate(state)
            while not self._signal and self._done < self._schedule.last:
                state = self._advance(state)
                self._save(state)
                self._evaluate(state)
            self._progress.flush()
            if self._done == self._schedule.last:
                self._checkpoints.finish(state, self._batches.get_state())
        except NonFiniteError as error:
            self._checkpoints.watch(wait=True)
            latest = self._checkpoints.latest
            last_good = "none" if latest is None else self._checkpoints.path(latest)
            raise NonFiniteError(f"{error}; last good checkpoint: {last_good}") from None
        self._checkpoints.watch(wait=True)
        if self._done < self._schedule.last or self._unscored:
            raise Interrupted(self._signal, self._stopped())
        return state

    def _advance(self, state: TrainState) -> TrainState:
        batch = self._progress.wait_for(self._batches)
        state, metrics = self._step(state, to_global(self._mesh, batch))
        self._done += 1
        self._progress.add(metrics)
        self._profile.finished(self._done, metrics)
        self._stalls.restart()
        self._checkpoints.watch()
        return state

    def _save(self, state: TrainState) -> None:
        """Saves the state where it is time to, by steps or minutes, or because of a signal."""
        due = self._agree(self._checkpoints.due)
        if due or self._signal or self._schedule.saves(self._done):
            self._progress.flush()
            self._checkpoints.save(state, self._batches.get_state())
            self._progress.restart_clock()

    def _evaluate(self, state: TrainState) -> None:
        """Scores the state where it is time to. It has been saved: what is broken off here costs no training."""
        self._unscored = (self._score is not None and self._schedule.scores(self._done)
                          and not self._checkpoints.scored(self._done))
        if self._score is None or not self._unscored or self._signal:
            return
        with contextlib.suppress(BrokenOff):
            self._checkpoints.add_scores(self._done, self._score(state, self._look_up))
            self._unscored = False
        self._progress.restart_clock()

    def _look_up(self) -> None:
        """Raises BrokenOff where a signal has asked to stop."""
        self._stalls.restart()
        self._agree()
        if self._signal:
            raise BrokenOff

    def _agree(self, *said: int) -> int:
        """The largest number that any process says here; whether one has been sent a signal is asked as well."""
        self._signal, *found = self._agreement(self._stop.signal, *said)
        self._stop.heeded = self._signal > 0
        return sum(found)

    def _parting(self) -> str | None:
        """What to say where the process may end right now, as nothing that has been done is unsaved."""
        saved = self._done == self._begun or self._checkpoints.latest == self._done
        return self._stopped() if saved else None

    def _stopped(self) -> str:
        latest = self._checkpoints.latest
        if latest == self._done:
            kept = "with a checkpoint"
        elif self._done == self._begun == 0:
            kept = "before there was anything to save"
        else:
            kept = f"which could not be saved: the latest checkpoint is {latest}"
        return f"stopped after step {self._done} of {self._schedule.last}, {kept}; the same command continues"
