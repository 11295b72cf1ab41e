import dataclasses

import numpy as np
import pytest

from tests.data.arc import fakes
from tests.data.batches import CONFIG, ONE, assert_same, canvases, joined, make_tasks, take, train
from trm_jax.data import pipeline
from trm_jax.data.arc import augment, grids, tasks
from trm_jax.data.arc.plan import EvalPlan
from trm_jax.data.arc.table import Table
from trm_jax.data.arc.tasks import TaskError, pair_digests
from trm_jax.data.sampling import Sampler

FIXED = {"variants": 5}


def left_out(counts):
    """Tasks with so many pairs, each of which may be asked."""
    rng = np.random.default_rng(2)
    return [tasks.leave_one_out(f"t{i}", tuple(fakes.pair(rng, largest=7) for _ in range(count)))
            for i, count in enumerate(counts)]


def index_of(pairs, given, answer):
    """Which of `pairs`, as they are, a canvas pair shows."""
    (found,) = [i for i, pair in enumerate(pairs)
                if np.array_equal(pair.input, given) and np.array_equal(pair.output, answer)]
    return found


def test_each_pair_is_asked_in_turn_and_never_stands_among_the_demonstrations():
    found = left_out([2, 3, 6])
    batch = joined(train(found, 60, augment=False))
    asked: dict[int, list[int]] = {0: [], 1: [], 2: []}
    for row, task in enumerate(batch.task.tolist()):
        pairs = found[task].demos
        shown = canvases(row, batch)
        query, *demos = [index_of(pairs, *shown[i:i + 2]) for i in range(0, len(shown), 2)]
        assert demos == sorted(set(demos)) and query not in demos
        assert len(demos) == min(len(pairs) - 1, 3)
        asked[task].append(query)
    for task, queries in asked.items():
        assert len(queries) == 160  # an epoch visits a task once, and a visit is one row
        share = np.bincount(queries, minlength=len(found[task].demos)) / 160
        assert (share > 0.6 / len(share)).all()


def test_a_task_of_many_pairs_shows_any_of_them():
    """RE-ARC's form: also without augmentation the demonstrations are drawn, not the first ones."""
    (generator,) = left_out([40])
    batch = joined(train([generator], 40, augment=False))
    shown = {index_of(generator.demos, *canvases(row, batch)[2:4]) for row in range(len(batch.task))}
    assert len(shown) > 20  # the first of three, drawn from forty


@pytest.mark.parametrize("changes", [{}, FIXED, FIXED | {"augment": False}], ids=str)
def test_rows_are_a_pure_function_of_seed_epoch_and_index_and_resume(changes):
    found = left_out([3, 4, 2]) + make_tasks([2])
    config = dataclasses.replace(CONFIG, **changes)
    first = pipeline.train_batches(found, config, seed=3, max_demos=3, **ONE)
    next(first)
    state, expected = first.get_state(), take(first, 4)
    second = pipeline.train_batches(found, config, seed=3, max_demos=3, **ONE)
    second.set_state(state)
    assert_same(take(second, 4), expected)
    parts = [train(found, 4, shares=4, share=share, **changes) for share in range(4)]
    assert_same([joined(part) for part in zip(*parts, strict=True)], train(found, 4, **changes))
    one, other = (Sampler(found, config, seed, max_demos=3) for seed in (3, 4))
    assert str(one.visit(7, 1)) == str(Sampler(found, config, 3, max_demos=3).visit(7, 1))
    assert str(one.visit(7, 1)) != str(one.visit(8, 1)) and str(one.visit(7, 1)) != str(other.visit(7, 1))


@pytest.mark.parametrize("colours", [True, False])
def test_fixed_variants_are_those_that_evaluation_votes_over(colours):
    found = left_out([3, 4])
    plan = EvalPlan(found, variants=5, seed=0, table=Table(pair_digests(found), 5), colours=colours)
    batch = joined(train(found, 20, augment=False, permute_colours=colours, max_demos=1, **FIXED))
    seen = set()
    for row, task in enumerate(batch.task.tolist()):
        table_row = int(batch.row[row])
        index, number = divmod(table_row, 5)
        assert index == task and table_row == plan.table_row(task, number)
        seen.add(table_row)
        undo = plan.variant(task, number).invert
        index_of(found[task].demos, *(undo(grid) for grid in canvases(row, batch)[:2]))
    assert seen == set(range(10))  # every variant of every task
    assert plan.variant(0, 0) == augment.IDENTITY


def test_with_augmentation_a_fixed_variant_is_shifted():
    batch = joined(train(left_out([3]), 40, variants=1))
    corners = {int(np.flatnonzero(canvas >= grids.FIRST_COLOUR)[0]) for canvas in batch.inputs}
    assert len(corners) > 10 and not batch.row.any()


def test_fresh_variants_have_no_row_and_keep_their_colours_where_told():
    found = left_out([3, 4])
    assert not joined(train(found, 3)).row.any()
    coloured = joined(train(found, 20, permute_colours=False, max_demos=1))
    for row, task in enumerate(coloured.task.tolist()):
        shown = {tuple(np.unique(pair.input)) for pair in found[task].demos}
        canvas = coloured.inputs[row]
        assert tuple(np.unique(canvas[canvas >= grids.FIRST_COLOUR]) - grids.FIRST_COLOUR) in shown


def test_evaluation_looks_up_the_rows_of_its_variants():
    train_tasks, evaluation = make_tasks([1, 2]), [fakes.task(np.random.default_rng(3), f"v{i}", largest=7)
                                                   for i in range(2)]
    table = Table(pair_digests([*train_tasks, *evaluation]), variants=4)
    assert len(table) == 16
    arguments = {"side": 10, "batch_size": 8, "max_demos": 3, **ONE}
    (batch,) = take(pipeline.eval_batches(EvalPlan(evaluation, 3, 0, table), **arguments), None)
    assert batch.batch.row[:6].tolist() == [8, 9, 10, 12, 13, 14]
    (without,) = take(pipeline.eval_batches(EvalPlan(evaluation, 3, 0), **arguments), None)
    assert not without.batch.row.any()
    assert_same(batch.batch.replace(row=without.batch.row), without.batch)


def test_a_task_without_a_row_is_one_clear_line():
    found = make_tasks([1, 1])
    with pytest.raises(TaskError, match=r"1 of 2 tasks have no row in the embedding table \(t1\)"):
        EvalPlan(found, 1, 0, Table(pair_digests(found[:1]), 4))
    other = Table({task.id: ["0" * 16] for task in found}, 4)  # under the same names
    with pytest.raises(TaskError, match=r"2 of 2 tasks have no row .*; 2 have the id of another task"):
        EvalPlan(found, 1, 0, other)
    assert other.known(found) == ()
    bare = dataclasses.replace(found[0], demos=())
    assert Table(pair_digests(found), 4).known([bare]) == ()  # its id alone says nothing
    with pytest.raises(TaskError, match=r"8 variants of each task are asked for.* rows for 4"):
        EvalPlan(found, 8, 0, Table(pair_digests(found), 4))
