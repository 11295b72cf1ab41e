import dataclasses
import json
import math

import numpy as np
import pytest

from tests.data.arc import fakes, golden
from trm_jax.data.arc import augment, grids, voting
from trm_jax.data.arc.tasks import Pair
from trm_jax.data.arc.voting import Score, Votes

A, B, C = (np.full((1, 2), colour, np.uint8) for colour in (1, 2, 3))


def cast(*ballots, task_id="t", query=0):
    """Votes for one query: (grid, q_halt) of variant 0, 1, …"""
    votes = Votes()
    for variant, (grid, q_halt) in enumerate(ballots):
        votes.add(task_id, query, variant, grid, q_halt)
    return votes


def order(votes):
    return [int(candidate.grid[0, 0]) for candidate in votes.ranking("t", 0)]


def test_candidates_rank_by_votes_then_confidence_then_first_variant():
    assert order(cast((A, 9), (B, 0), (B, 0))) == [2, 1]
    assert order(cast((A, 0), (B, 1))) == [2, 1]
    assert order(cast((C, 1), (A, 1), (B, 1))) == [3, 1, 2]
    best = cast((A, 0.5), (None, 9), (A, -2)).ranking("t", 0)
    assert [best[0].votes, len(best), best[0].first_variant] == [2, 1, 0]
    sigmoids = [1 / (1 + math.exp(-0.5)), 1 / (1 + math.exp(2))]
    assert best[0].confidence == pytest.approx(sum(sigmoids) / 2, abs=1e-15)


def test_equal_cells_in_another_shape_are_another_grid():
    assert len(cast((A, 0), (A.T, 0)).ranking("t", 0)) == 2


def test_extreme_logits_are_no_trouble():
    candidates = cast((A, 1000), (B, -1000), (C, math.inf)).ranking("t", 0)
    assert [candidate.confidence for candidate in candidates] == [1, 1, 0]


def test_the_order_of_arrival_does_not_matter():
    rng = np.random.default_rng(0)
    ballots = [(v, [A, B, C, None][rng.integers(4)], float(rng.normal())) for v in range(200)]
    ballots += [(200 + v, np.full((1, 1), v, np.uint8), 0.5) for v in range(10)]  # equals
    results = []
    for _ in range(5):
        votes = Votes()
        for index in rng.permutation(len(ballots)):
            variant, grid, q_halt = ballots[index]
            votes.add("t", 0, variant, grid, q_halt)
        ranking = votes.ranking("t", 0)
        results.append([(c.grid.tobytes(), c.votes, c.confidence, c.first_variant) for c in ranking])
    assert all(result == results[0] for result in results)


def test_a_variant_votes_once_and_with_a_number():
    votes = cast((A, 0))
    with pytest.raises(ValueError, match="variant 0 has voted before"):
        votes.add("t", 0, 0, B, 0)
    with pytest.raises(ValueError, match="q_halt is NaN"):
        votes.add("t", 0, 1, B, math.nan)
    assert len(votes) == 1


def test_votes_of_one_evaluation_do_not_survive_into_the_next():
    """Known fault 8."""
    task = dataclasses.replace(fakes.task(np.random.default_rng(0), "t"), queries=(Pair(A, B),))
    assert voting.score(cast((B, 0)), [task], [1]).pass_at == {1: 1.0}
    assert len(Votes()) == 0
    assert voting.score(cast((A, 0)), [task], [1, 2]).pass_at == {1: 0.0, 2: 0.0}


def test_votes_survive_json_and_merge_bit_for_bit():
    rng = np.random.default_rng(0)
    whole, halves = Votes(), (Votes(), Votes())
    for variant in range(40):
        grid = fakes.grid(rng) if variant % 5 else None
        vote = ("t", variant % 2, variant, grid, np.float32(rng.normal()))
        whole.add(*vote)
        halves[variant % 2].add(*vote)
    again = Votes()
    for half in halves:
        again.extend(json.loads(json.dumps(half.to_list())))
    assert sorted(map(str, again.to_list())) == sorted(map(str, whole.to_list()))
    for query in range(2):
        for one, other in zip(again.ranking("t", query), whole.ranking("t", query), strict=True):
            assert (one.votes, one.confidence) == (other.votes, other.confidence)
            np.testing.assert_array_equal(one.grid, other.grid)


def two_query_task(task_id, answers=(A, B)):
    task = fakes.task(np.random.default_rng(0), task_id)
    return dataclasses.replace(task, queries=tuple(Pair(C, answer) for answer in answers))


def test_the_score_divides_by_evaluated_tasks_and_reports_all_three_numbers():
    """Known fault 7: a task without predictions is neither right nor wrong, but it is counted."""
    tasks = [two_query_task(name) for name in "abcd"]
    votes = Votes()
    for task_id, query, grid in (("a", 0, A), ("a", 1, B), ("b", 0, A), ("b", 1, C), ("c", 0, None)):
        votes.add(task_id, query, 0, grid, 0.0)
    votes.add("b", 1, 1, B, -1.0)
    expected = Score(pass_at={1: 0.5, 2: 2 / 3}, solved={1: 1, 2: 2}, evaluated=3, total=4,
                     by_task={"a": 1.0, "b": 1.0, "c": 0.0})
    assert voting.score(votes, tasks, [1, 2]) == expected


def test_a_query_that_was_not_predicted_counts_as_wrong_and_an_unknown_answer_not_at_all():
    votes = cast((A, 0), task_id="a")
    assert voting.score(votes, [two_query_task("a")], [1]).pass_at == {1: 0.5}
    assert voting.score(votes, [two_query_task("a", (A, None))], [1]).pass_at == {1: 1.0}
    unknown = voting.score(votes, [two_query_task("a", (None, None))], [1])
    assert unknown == Score(pass_at={1: 0.0}, solved={1: 0}, evaluated=0, total=1, by_task={})


def test_a_submission_is_always_complete():
    votes = cast((A, 0), task_id="a")
    votes.add("a", 1, 0, None, 0.0)
    votes.add("b", 0, 0, A, 0.0)
    votes.add("b", 0, 1, B, 1.0)
    found = voting.submission(votes, [two_query_task(name) for name in "abc"])
    nothing = {"attempt_1": [[0]], "attempt_2": [[0]]}
    assert found["a"] == [{"attempt_1": [[1, 1]], "attempt_2": [[1, 1]]}, nothing]
    assert found["b"] == [{"attempt_1": [[2, 2]], "attempt_2": [[1, 1]]}, nothing]
    assert found["c"] == [nothing, nothing]
    json.dumps(found)


@pytest.mark.parametrize(
    ("successes", "trials", "expected"),
    [(0, 10, (0.0, 0.2775)), (5, 10, (0.2366, 0.7634)), (10, 10, (0.7225, 1.0)), (0, 0, (0.0, 1.0))],
)
def test_wilson_interval(successes, trials, expected):
    assert voting.wilson(successes, trials) == pytest.approx(expected, abs=5e-5)


def golden_votes(case, recorded, tasks):
    """The case's rows as votes. Upstream breaks ties by first seen: the row stands for the variant number."""
    votes, arrays = Votes(), case.arrays
    side = golden.canvas_side(arrays["evaluator/preds"].shape[1])
    for row, identifier in enumerate(arrays["evaluator/puzzle_identifiers"]):
        name = recorded["identifiers"][identifier]
        if name == "<blank>":
            continue
        task_id, variant = augment.parse(name)
        given = variant.invert(grids.crop(arrays["evaluator/inputs"][row], side))
        query = [np.array_equal(given, pair.input) for pair in tasks[task_id].queries].index(True)
        grid = grids.crop(arrays["evaluator/preds"][row], side)
        grid = None if grid is None else variant.invert(grid)
        votes.add(task_id, query, row, grid, arrays["evaluator/q_halt_logits"][row])
    return votes


@pytest.mark.parity
@pytest.mark.parametrize("case", golden.CASES, ids=str)
def test_golden_evaluator(case):
    recorded, puzzles = golden.read(case, "evaluator.json"), golden.puzzles(case)
    votes = golden_votes(case, recorded, puzzles)
    for task_id, queries in recorded["votes"].items():
        for query, expected in enumerate(queries):
            ranking, answer = votes.ranking(task_id, query), puzzles[task_id].queries[query].output
            for candidate, entry in zip(ranking, expected["candidates_sorted"], strict=True):
                assert grids.digest(candidate.grid) == entry["hash"] and candidate.votes == entry["votes"]
                assert candidate.confidence == pytest.approx(entry["mean_q"], abs=1e-12)
                assert np.array_equal(candidate.grid, answer) == entry["correct"]
            assert votes.rank_of(task_id, query, answer) == expected["correct_rank"]

    tasks = [puzzles[task_id] for task_id in recorded["test_puzzle_ids"]]
    score = voting.score(votes, tasks, recorded["pass_Ks"])
    assert (score.evaluated, score.total) == (len(recorded["votes"]), len(tasks))
    for k in recorded["pass_Ks"]:
        assert score.pass_at[k] == pytest.approx(recorded["metrics_etrm"][f"ARC/pass@{k}"], abs=1e-12)
        over_all = score.pass_at[k] * score.evaluated / score.total
        assert over_all == pytest.approx(recorded["metrics_official"][f"ARC/pass@{k}"], abs=1e-12)

    found = voting.submission(votes, tasks)
    assert list(found) == recorded["test_puzzle_ids"]  # upstream leaves tasks out, or their queries
    for task_id, attempts in recorded["submission"].items():
        assert found[task_id] == attempts
