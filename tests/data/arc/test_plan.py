import numpy as np
import pytest

from tests.data.arc import fakes
from trm_jax.data.arc import grids
from trm_jax.data.arc.augment import IDENTITY
from trm_jax.data.arc.plan import EvalPlan, Place
from trm_jax.data.arc.voting import Votes


@pytest.fixture
def tasks():
    rng = np.random.default_rng(0)
    return [fakes.task(rng, f"t{queries}", queries=queries, largest=8) for queries in (1, 3, 2)]


def test_rows_run_over_tasks_variants_and_queries(tasks):
    plan = EvalPlan(tasks, variants=4, seed=0)
    expected = [
        Place(task, variant, query)
        for task, of in enumerate(tasks)
        for variant in range(4)
        for query in range(len(of.queries))
    ]
    assert [plan.locate(row) for row in range(len(plan))] == expected
    numbers = [plan.variant_number(place) for place in expected]
    assert sorted(set(numbers)) == list(range(12)) and numbers == sorted(numbers)
    for row in (-1, len(plan)):
        with pytest.raises(IndexError):
            plan.locate(row)


def test_variants_depend_on_seed_and_task_alone(tasks):
    few, many = EvalPlan(tasks, 3, seed=7), EvalPlan(tasks[1:], 20, seed=7)
    assert few.variant(1, 0) == IDENTITY
    assert [few.variant(1, n) for n in range(3)] == [many.variant(0, n) for n in range(3)]
    assert few.variant(1, 1) != few.variant(2, 1)
    assert few.variant(1, 1) != EvalPlan(tasks, 3, seed=8).variant(1, 1)
    assert len({many.variant(0, n) for n in range(20)}) == 20


def test_a_plan_needs_tasks_and_a_variant(tasks):
    with pytest.raises(ValueError, match="no task"):
        EvalPlan([], 1, 0)
    with pytest.raises(ValueError, match="0 variants"):
        EvalPlan(tasks, 0, 0)


def test_padded_rows_are_skipped_with_their_q_wherever_they_stand(tasks):
    """Known fault 10: a mask of padding must hit rows, predictions and q values alike."""
    side, plan = 9, EvalPlan(tasks, variants=3, seed=0)
    rng = np.random.default_rng(1)
    rows, tokens, q_halt = [], [], []
    for row in rng.permutation(len(plan)):
        place = plan.locate(int(row))
        task = plan.tasks[place.task]
        answer = plan.variant(place.task, place.variant).apply(task.queries[place.query].output)
        rows += [-1, row]
        tokens += [np.full(side * side, 2), grids.tokenise(answer, side)]
        q_halt += [99.0, row]
    votes = Votes()
    plan.vote(votes, np.array(rows), np.array(tokens), np.array(q_halt, np.float32))
    assert len(votes) == len(plan)
    first = 0
    for task in tasks:
        for query, pair in enumerate(task.queries):
            (best,) = votes.ranking(task.id, query)
            np.testing.assert_array_equal(best.grid, pair.output)
            logits = [first + variant * len(task.queries) + query for variant in range(3)]  # each its row
            confidence = np.mean(1 / (1 + np.exp(-np.array(logits))))
            assert best.confidence == pytest.approx(confidence, abs=1e-12)
        first += 3 * len(task.queries)


def test_a_prediction_without_a_grid_is_a_prediction(tasks):
    plan, votes = EvalPlan(tasks, 1, 0), Votes()
    plan.vote(votes, [0], np.zeros((1, 81), np.int32), [0.0])
    assert votes.predictions(tasks[0].id, 0) == 1 and votes.ranking(tasks[0].id, 0) == []
