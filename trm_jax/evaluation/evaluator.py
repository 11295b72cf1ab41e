"""One evaluation: every query of every chosen variant of every task, predicted, mapped back and voted.

Training, `evaluate` and `solve` share it.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from trm_jax.data.arc.plan import EvalPlan
from trm_jax.data.arc.rows import PADDING
from trm_jax.data.arc.table import Table
from trm_jax.data.arc.tasks import Task
from trm_jax.data.arc.voting import ATTEMPTS, Score, Votes, score
from trm_jax.data.pipeline import EvalBatch, eval_batches
from trm_jax.dynamics.inference import Predict, Prediction
from trm_jax.dynamics.losses import RowLosses
from trm_jax.dynamics.metrics import NonFiniteError
from trm_jax.dynamics.state import Tree
from trm_jax.errors import ConfigError
from trm_jax.evaluation.scoring import Answer, Tally
from trm_jax.run.mesh import Mesh, check_divides, to_global, to_hosts
from trm_jax.run.settings import Settings


class Evaluator:
    """Evaluates parameters on a fixed choice of tasks and variants.

    Args:
        settings: of the run; `settings.eval` says how to evaluate.
        predict: as `programs.compiled` makes it for this mesh, with a latent search or without.
        tasks: to evaluate; they fit the canvas. Those without a row in the table are left out.
        all_tasks: the whole set that they come from, which the score's total counts.
        table: rows of the model's embedding table, None for a model that reads demonstrations.

    Raises:
        ConfigError: no task to evaluate, or a batch that does not divide by the devices.
        TaskError: the table has a row for none of the tasks, or for fewer variants of each.
    """

    def __init__(self, settings: Settings, mesh: Mesh, predict: Predict, tasks: Sequence[Task],
                 all_tasks: Sequence[Task], table: Table | None = None):
        config, side = settings.eval, settings.data.max_grid_size
        if not tasks:
            raise ConfigError(f"none of the {len(all_tasks)} evaluation tasks fits {side}x{side} "
                              "(data.max_grid_size)")
        check_divides("eval.batch_size", config.batch_size, mesh)
        known = tasks if table is None else table.known(tasks)
        self.plan = EvalPlan(known or tasks, config.augmentations, settings.train.seed, table,
                             settings.data.permute_colours)
        self.without_row = len(tasks) - len(self.plan.tasks)
        self.all_tasks = tuple(all_tasks)
        self.batch_size = config.batch_size
        # pass@2 is the ARC Prize's number, and the one that the best checkpoint is chosen by.
        self._ks = sorted({*config.pass_ks, ATTEMPTS})
        self._mesh = mesh
        self._predict = predict
        self._batches = functools.partial(
            eval_batches, self.plan, side=side, batch_size=config.batch_size,
            max_demos=settings.encoder.max_demos, process_index=jax.process_index(),
            process_count=jax.process_count())

    def run(self, params: Tree, buffers: Tree, first_row: int = 0) -> Iterator[list[Answer]]:
        """The answers of each batch, in the order of rows; the next batch is under way meanwhile.

        Args:
            first_row: where to start, a multiple of the batch size, or the number of all rows.

        Raises:
            NonFiniteError: the model answers with numbers that are not finite.
        """
        if first_row == len(self.plan):
            return
        pending: Any = None
        for local in self._batches(first_batch=first_row // self.batch_size):
            batch: EvalBatch = to_global(self._mesh, local)
            out = (batch.row, *self._predict(params, buffers, batch.batch, batch.variant))
            if pending is not None:
                yield self._answers(pending)
            pending = out
        yield self._answers(pending)

    def score(self, tally: Tally) -> Score:
        """pass@K of the votes for the K of the settings and 2; its total is that of the whole set."""
        return score(tally.votes, self.all_tasks, self._ks)

    def tags(self, tally: Tally) -> dict[str, float]:
        """TensorBoard tag → value: eval/pass@K and the mean of every metric."""
        passed = {f"eval/pass@{k}": value for k, value in self.score(tally).pass_at.items()}
        return {f"eval/{name}": value for name, value in tally.means().items()} | passed

    def _answers(self, out: Any) -> list[Answer]:
        """One answer per real row of a batch; padded rows give none."""
        row, prediction, right, *searched = to_hosts(out)
        answers = []
        for i in map(int, np.flatnonzero(row != PADDING)):
            answer = self._answer(int(row[i]), i, prediction, right)
            for found in searched:
                if not np.isfinite([found.loss[i], found.start_loss[i]]).all():
                    raise NonFiniteError("the token loss of the demonstrations is not finite")
                before = self._answer(int(row[i]), i, found.prediction, found.rows)
                answer = answer.after_search(float(found.loss[i]), before, float(found.start_loss[i]))
            answers.append(answer)
        return answers

    def _answer(self, row: int, i: int, prediction: Prediction, right: RowLosses) -> Answer:
        """What became of a row of the plan, the i-th of a batch."""
        if not np.isfinite(prediction.q_halt[i]):
            raise NonFiniteError("the model answers with numbers that are not finite")
        votes = Votes()
        self.plan.vote(votes, [row], np.asarray(prediction.tokens[i:i + 1]), [float(prediction.q_halt[i])])
        (vote,) = votes.to_list()
        metrics = {"steps": float(prediction.steps[i])}
        if right.labelled[i]:
            halt_right = (prediction.q_halt[i] >= 0) == right.correct[i]
            metrics |= {"accuracy": float(right.accuracy[i]), "exact_accuracy": float(right.correct[i]),
                        "q_halt_accuracy": float(halt_right)}
        return Answer(row, vote, metrics)
