"""How a run does on its evaluation tasks, while it trains."""

from collections.abc import Callable

import jax
from flax import nnx

from trm_jax.data.arc.table import Table
from trm_jax.data.arc.tasks import pair_digests
from trm_jax.data.arc.voting import ATTEMPTS
from trm_jax.data.split import Split
from trm_jax.dynamics.state import TrainState
from trm_jax.evaluation.diagnosis import diagnose
from trm_jax.evaluation.evaluator import Evaluator
from trm_jax.evaluation.pictures import watched
from trm_jax.evaluation.scoring import Tally
from trm_jax.run.bar import Bar
from trm_jax.run.mesh import Mesh
from trm_jax.run.programs import compiled, compiled_measure
from trm_jax.run.settings import Settings
from trm_jax.run.writer import Writer


class Validation:
    """Scores the evaluation parameters of a state.

    Attributes:
        tasks: those that are scored; none where an embedding table knows training tasks only.

    Raises:
        ConfigError: none of the evaluation tasks fits the canvas.
    """

    def __init__(self, settings: Settings, mesh: Mesh, graph: nnx.GraphDef, split: Split):
        self._settings, self._mesh = settings, mesh
        self._table = Table(pair_digests(split.train), settings.data.variants) if settings.embeds_tasks else None
        self.tasks = split.evaluation if self._table is None else self._table.known(split.evaluation)
        self._measure = compiled_measure(mesh, graph)
        self._evaluator = None
        if self.tasks or self._table is None:
            predict = compiled(mesh, graph, settings.eval.halt, settings.loss.type)
            self._evaluator = Evaluator(settings, mesh, predict, self.tasks, split.all_evaluation, self._table)

    def score(self, writer: Writer, protocol: str, say: Callable[[str], None], state: TrainState,
              each_batch: Callable[[], None]) -> dict[str, float]:
        """TensorBoard tag → score; logs these, and what tells whether the encoder has collapsed.

        Args:
            protocol: the word that the scores carry.
            say: takes a line for the log.
            each_batch: called after each; what it raises breaks the evaluation off.
        """
        assert self._evaluator is not None
        evaluator, tally, step = self._evaluator, Tally(), int(state.step)
        with Bar(len(evaluator.plan), "evaluate", "row", show=jax.process_index() == 0, keep=False) as bar:
            for answers in evaluator.run(state.eval_params, state.buffers):
                tally.add(answers)
                bar.update(len(answers))
                each_batch()
        tags, score = evaluator.tags(tally), evaluator.score(tally)
        collapse = diagnose(self._settings, self._mesh, self._measure, self.tasks, self._table, state.eval_params,
                            state.buffers, step, each_batch)
        writer.scalars(step, tags | {f"eval/{name}": value for name, value in collapse.items()})
        for tag, picture in watched(evaluator.plan.tasks, tally.votes, self._settings.encoder.max_demos).items():
            writer.image(tag, picture, step)
        say(f"step {step}: " + ", ".join(f"{tag} {value:.3f}" for tag, value in tags.items()) +
            f"; {protocol}: solved {score.solved[ATTEMPTS]} / evaluated {score.evaluated} / total {score.total} tasks")
        return tags
