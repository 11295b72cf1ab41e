import numpy as np

from trm_jax.data.arc.tasks import Pair, Task
from trm_jax.data.arc.voting import Votes
from trm_jax.evaluation.mistakes import mistakes


def test_each_query_is_counted_once_by_what_its_best_candidate_is():
    shown, answer = np.zeros((4, 5), np.uint8), np.full((4, 5), 3, np.uint8)
    near, far = answer.copy(), answer.copy()
    near[0, :2] = far[0, :3] = 1  # two and three of twenty cells
    cast = [[far, answer], [far, shown, answer], [near], [shown], [answer[:3]], [None], [shown.copy()]]
    queries = [Pair(shown, answer)] * 6 + [Pair(shown, None)]  # of the last the answer is not known
    votes = Votes()
    for query, grids in enumerate(cast):
        for number, grid in enumerate(grids):
            votes.add("t", query, number, grid, q_halt=-number)  # equal votes: the more confident ranks first
    found = mistakes(votes, [Task("t", (), tuple(queries))])
    assert found == {"answered": 1, "with up to a tenth of the cells wrong": 1,
                     "with over a tenth of the cells wrong": 1, "that repeat the query": 1, "of another size": 1,
                     "without a complete grid": 1}
