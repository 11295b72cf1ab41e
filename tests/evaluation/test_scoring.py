"""The whole way from tasks to scores, with a stand-in for the model: variants, batches, crop, inverse, vote."""

import dataclasses
import itertools
import json

import jax
import numpy as np
import pytest

from configs import o1
from tests import tiny
from tests.data.arc import fakes
from tests.stand_ins import black, nothing, oracle, stand_in
from trm_jax.data.arc.tasks import Pair, Task
from trm_jax.dynamics.inference import Searched
from trm_jax.dynamics.metrics import NonFiniteError
from trm_jax.errors import ConfigError
from trm_jax.evaluation.evaluator import Evaluator
from trm_jax.evaluation.journal import Journal
from trm_jax.evaluation.scoring import Answer, Tally
from trm_jax.run.mesh import data_mesh
from trm_jax.run.settings import EvalConfig

SIDE = 5


def settings(**changes):
    found = tiny.settings(tiny.shrink(o1.get_config("tiny"), "unused"))
    config = EvalConfig(**{"augmentations": 4, "halt": "max_steps", "batch_size": 8, "pass_ks": (1, 2, 5),
                           "search_steps": 0, "search_lr": 0.1} | changes)
    return dataclasses.replace(found, eval=config, data=dataclasses.replace(found.data, max_grid_size=SIDE))


def evaluate(tasks, answer, all_tasks=None, devices=1, q_halt=0.0, **changes):
    mesh = data_mesh(jax.devices()[:devices])
    evaluator = Evaluator(settings(**changes), mesh, stand_in(answer, q_halt), tasks, all_tasks or tasks)
    tally = Tally()
    for answers in evaluator.run({}, {}):
        tally.add(answers)
    return evaluator, tally


def make_tasks(queries, side=4):
    rng = np.random.default_rng(0)
    return [fakes.task(rng, f"t{i}", 2, count, side) for i, count in enumerate(queries)]


@pytest.mark.parametrize(("batch_size", "devices"), [(1, 1), (7, 1), (64, 1), (8, 8)])
def test_an_oracle_scores_everything(batch_size, devices):
    tasks = make_tasks([1, 3, 2])
    evaluator, tally = evaluate(tasks, oracle, batch_size=batch_size, devices=devices)
    assert tally.rows == len(evaluator.plan) == 24
    score = evaluator.score(tally)
    assert score.pass_at == {1: 1, 2: 1, 5: 1} and score.solved[1] == score.evaluated == score.total == 3
    assert tally.means() == {"steps": 3, "accuracy": 1, "exact_accuracy": 1, "q_halt_accuracy": 1}
    for task, query in itertools.chain(*([(t, q) for q in range(len(t.queries))] for t in tasks)):
        (best,) = tally.votes.ranking(task.id, query)
        assert best.votes == 4 and best.confidence == 0.5
        np.testing.assert_array_equal(best.grid, task.queries[query].output)


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_a_constant_scores_what_arithmetic_says(batch_size):
    """Black on the whole canvas is right for a black 5×5 grid only; colour 0 and squares are alike in all variants.

    The first task has that and a black 3×3 grid: of the latter's 9 cells and 6 of EOS the constant has 9 right.
    The second task asks for a blue 2×2 grid: none of its 4 cells and 4 of EOS.
    """
    def square(side, colour=0):
        return np.full((side, side), colour, np.uint8)

    demo = Pair(square(2), square(2))
    tasks = [Task("a", (demo,), (Pair(square(2), square(5)), Pair(square(2), square(3)))),
             Task("b", (demo,), (Pair(square(2), square(2, 1)),))]
    left_out = Task("c", (Pair(square(6), square(6)),), (Pair(square(6), square(6)),))
    evaluator, tally = evaluate(tasks, black, [*tasks, left_out], batch_size=batch_size)
    score = evaluator.score(tally)
    assert score.pass_at == {1: 0.25, 2: 0.25, 5: 0.25} and score.solved == {1: 0, 2: 0, 5: 0}
    assert (score.evaluated, score.total) == (2, 3)
    means = tally.means()
    assert means["accuracy"] == pytest.approx((1 + 9 / 15 + 0) / 3, abs=1e-7)
    assert means["exact_accuracy"] == pytest.approx(1 / 3)
    assert means["q_halt_accuracy"] == pytest.approx(1 / 3)  # a logit of 0 says "right"
    tags = evaluator.tags(tally)
    assert tags["eval/pass@2"] == 0.25 and tags["eval/accuracy"] == means["accuracy"]


def test_pass_at_two_is_always_there():
    """The best checkpoint is chosen by it."""
    evaluator, tally = evaluate(make_tasks([1]), oracle, pass_ks=(1,))
    assert evaluator.tags(tally)["eval/pass@2"] == 1


def test_a_query_without_a_known_answer_is_predicted_and_counts_for_nothing():
    tasks = make_tasks([2, 1])
    tasks[0] = dataclasses.replace(tasks[0], queries=(tasks[0].queries[0], Pair(tasks[0].queries[1].input, None)))
    tasks[1] = dataclasses.replace(tasks[1], queries=(Pair(tasks[1].queries[0].input, None),))
    evaluator, tally = evaluate(tasks, oracle)
    assert tally.rows == 12 and tally.means()["exact_accuracy"] == 1
    score = evaluator.score(tally)
    assert score.pass_at[1] == 1 and (score.evaluated, score.total) == (1, 2)


def test_predictions_without_a_complete_grid_are_no_candidates():
    evaluator, tally = evaluate(make_tasks([2]), nothing)
    assert tally.rows == 8 and tally.votes.ranking("t0", 0) == [] and tally.votes.predictions("t0", 0) == 4
    assert evaluator.score(tally).pass_at == {1: 0, 2: 0, 5: 0}


def test_nothing_to_evaluate_or_numbers_that_are_none_are_clear_errors():
    with pytest.raises(ConfigError, match="none of the 1 evaluation tasks fits 5x5"):
        evaluate([], oracle, make_tasks([1]))
    with pytest.raises(ConfigError, match=r"eval.batch_size=7 must be a positive multiple"):
        evaluate(make_tasks([1]), oracle, batch_size=7, devices=8)
    with pytest.raises(NonFiniteError, match="not finite"):
        evaluate(make_tasks([1]), oracle, q_halt=np.nan)

    def lost(*args):  # a search whose contexts all give a loss that is none
        found = stand_in(oracle)(*args)
        return *found, Searched(*found, *[np.full(len(found[0].steps), np.inf, np.float32)] * 2)

    evaluator = Evaluator(settings(), data_mesh(jax.devices()[:1]), lost, make_tasks([1]), make_tasks([1]))
    with pytest.raises(NonFiniteError, match="loss of the demonstrations is not finite"):
        list(evaluator.run({}, {}))


@pytest.mark.parametrize(("changes", "message"), [
    ({"augmentations": 0}, "eval.augmentations=0"), ({"augmentations": 10**7}, "more than the 2,903,040 variants"),
    ({"halt": "Q"}, "eval.halt='Q'"), ({"pass_ks": ()}, "eval.pass_ks"), ({"pass_ks": (0,)}, "eval.pass_ks")])
def test_bad_settings(changes, message):
    with pytest.raises(ConfigError, match=message):
        settings(**changes)


ANSWERS = [Answer(i, ["t", 0, i, "12/34" if i % 3 else None, i / 7], {"accuracy": i / 3}) for i in range(10)]


def journal(tmp_path, writes=True, **evaluation):
    return Journal(tmp_path / "out" / "predictions.jsonl", {"step": 1, "ks": (1, 2)} | evaluation, writes)


def test_a_journal_goes_on_from_whole_batches(tmp_path):
    assert list(journal(tmp_path).resume(4, 10)) == []
    for start in range(0, 10, 4):
        journal(tmp_path).append(ANSWERS[start:start + 4])
    file = tmp_path / "out" / "predictions.jsonl"
    whole = file.read_text()
    assert list(journal(tmp_path).resume(4, 10)) == ANSWERS  # it is complete, though the last batch is not full
    file.write_text(whole[:-5])  # stopped within a line
    assert list(journal(tmp_path, writes=False).resume(4, 10)) == ANSWERS[:8]
    assert file.read_text() == whole[:-5]
    assert list(journal(tmp_path).resume(4, 10)) == ANSWERS[:8]
    assert list(journal(tmp_path).resume(3, 10)) == ANSWERS[:6]  # with batches of another size
    journal(tmp_path).append(ANSWERS[6:])
    assert file.read_text() == whole
    file.write_text(whole[:5])  # stopped within the first line
    assert list(journal(tmp_path).resume(4, 10)) == []
    journal(tmp_path).append(ANSWERS)
    assert file.read_text() == whole


def test_a_journal_of_something_else_is_refused_and_left_alone(tmp_path):
    journal(tmp_path).append(ANSWERS)
    file = tmp_path / "out" / "predictions.jsonl"
    whole = file.read_text()
    with pytest.raises(ConfigError, match=r"another evaluation \(step: 1 there, 2 here\)"):
        journal(tmp_path, step=2).resume(4, 10)
    assert file.read_text() == whole
    lines = whole.splitlines(keepends=True)
    for line in ('{"row"\n', '{"what": 1}\n'):
        file.write_text("".join([*lines[:3], line, *lines[4:]]))
        with pytest.raises(ConfigError, match="line 4 is damaged"):
            list(journal(tmp_path).resume(4, 10))
    file.write_text("[]\n")
    with pytest.raises(ConfigError, match="no file of predictions"):
        journal(tmp_path).resume(4, 10)


def test_only_one_process_writes(tmp_path):
    journal(tmp_path, writes=False).append(ANSWERS)
    assert not (tmp_path / "out").exists()


def test_a_tally_survives_json_and_wants_every_row_once():
    tally, again = Tally(), Tally()
    tally.add(ANSWERS)
    again.add(Answer(**json.loads(json.dumps(dataclasses.asdict(answer)))) for answer in ANSWERS)
    assert again.means() == tally.means() and again.votes.to_list() == tally.votes.to_list()
    for wrong in (ANSWERS[0], ANSWERS[9]):
        with pytest.raises(ValueError, match="follows on 10 answers"):
            tally.add([wrong])
    with pytest.raises(ValueError, match="has voted before"):
        tally.add([dataclasses.replace(ANSWERS[3], row=10)])
