import dataclasses

import jax
import numpy as np
import pytest

from tests.data.batches import CONFIG, ONE, assert_same, canvases, joined, make_tasks, take, train
from trm_jax.data import pipeline
from trm_jax.data.arc import augment, grids, voting
from trm_jax.data.arc.plan import EvalPlan
from trm_jax.data.arc.tasks import Pair, TaskError
from trm_jax.data.arc.voting import Votes
from trm_jax.data.sampling import Sampler
from trm_jax.data.split import load_tasks
from trm_jax.errors import ConfigError


@pytest.fixture(scope="module")
def evaluation():
    return load_tasks(dataclasses.replace(CONFIG, max_grid_size=30)).evaluation


def evaluate(plan, batch_size, side=10, max_demos=3, shares=1, share=0, first_batch=0):
    iterator = pipeline.eval_batches(
        plan,
        side=side,
        batch_size=batch_size,
        max_demos=max_demos,
        process_index=share,
        process_count=shares,
        first_batch=first_batch,
    )
    return take(iterator, None)


def test_no_train_task_is_one_clear_line():
    with pytest.raises(TaskError, match="no train task fits 10x10"):
        train([], 1)


def test_a_batch_that_does_not_divide_names_both_numbers():
    with pytest.raises(ConfigError, match="8 rows does not divide by 3 processes"):
        train(make_tasks([1]), 1, shares=3)


# ---- Training ---------------------------------------------------------------------------------------------


def test_a_batch_has_the_shapes_it_promises():
    (batch,) = train(make_tasks([1, 2]), 1, max_demos=5)
    described = {name: (leaf.shape, leaf.dtype) for name, leaf in dataclasses.asdict(batch).items()}
    assert described == {
        "inputs": ((8, 100), np.uint8),
        "labels": ((8, 100), np.int32),
        "demos": ((8, 5, 2, 100), np.uint8),
        "demo_mask": ((8, 5), bool),
        "task": ((8,), np.int32),
        "row": ((8,), np.int32),
    }
    assert (batch.demo_mask.sum(axis=1) == 3).all() and not batch.demos[:, 3:].any()
    assert (batch.labels != grids.PAD).all() and (batch.labels == grids.IGNORE).any()


def test_rows_are_a_pure_function_of_the_seed():
    tasks = make_tasks([1, 2, 1])
    assert_same(train(tasks, 3), train(tasks, 3))
    assert (joined(train(tasks, 3)).inputs != joined(train(tasks, 3, seed=1)).inputs).any()


def test_epochs_are_permutations_and_rows_run_on_across_them():
    tasks = make_tasks([1] * 5)
    rows = joined(train(tasks, 10)).task  # 80 rows, 16 epochs; a batch never ends with one
    epochs = rows.reshape(16, 5)
    assert (np.sort(epochs, axis=1) == np.arange(5)).all()
    assert len({tuple(epoch) for epoch in epochs.tolist()}) > 8


def test_eight_epochs_of_32_groups_fill_a_batch_of_256():
    (batch,) = train(make_tasks([1] * 32), 1, global_batch_size=256)
    assert (np.bincount(batch.task) == 8).all()


def test_every_answered_query_is_a_row_and_its_neighbours_share_the_demos():
    tasks = make_tasks([3, 1, 2])
    hidden = (Pair(tasks[2].queries[0].input, None), tasks[2].queries[1])
    tasks[2] = dataclasses.replace(tasks[2], queries=hidden)
    assert Sampler(tasks, CONFIG, seed=0, max_demos=3).rows_per_epoch == 5
    batch = joined(train(tasks, 5))
    assert (batch.labels != grids.IGNORE).any(axis=1).all()
    for epoch in batch.task.reshape(-1, 5):
        assert np.bincount(epoch).tolist() == [3, 1, 1]
    for row in np.flatnonzero(batch.task[1:] == batch.task[:-1]):
        if row % 5 != 4 and batch.task[row] == 0:
            np.testing.assert_array_equal(batch.demos[row], batch.demos[row + 1])


def test_without_augmentation_the_task_comes_as_it_is():
    tasks = make_tasks([2, 1], demos=4)
    (batch,) = train(tasks, 1, augment=False, global_batch_size=3)
    for row, task in enumerate(batch.task):
        query = int(row > 0 and batch.task[row - 1] == task)
        pair = tasks[task].queries[query]
        expected = [pair.input, pair.output, *(g for d in tasks[task].demos[:3] for g in (d.input, d.output))]
        np.testing.assert_array_equal(batch.inputs[row], grids.tokenise(pair.input, 10))
        for found, grid in zip(canvases(row, batch), expected, strict=True):
            np.testing.assert_array_equal(found, grid)


def test_augmentation_is_one_variant_of_the_whole_task_and_an_offset_per_pair():
    tasks = make_tasks([1], demos=5)
    variants, offsets, subsets = set(), set(), set()
    for batch in train(tasks, 8):
        for row in range(8):
            found = canvases(row, batch)
            variant = match(tasks[0], found)
            variants.add(variant)
            undone = [variant.invert(grid) for grid in found[2:]]
            sources = [
                next(i for i, demo in enumerate(tasks[0].demos) if np.array_equal(demo.input, grid))
                for grid in undone[::2]
            ]
            assert sources == sorted(set(sources)) and len(sources) == 3
            for source, grid in zip(sources, undone[1::2], strict=True):
                np.testing.assert_array_equal(tasks[0].demos[source].output, grid)
            subsets.add(tuple(sources))
            offsets.add(tuple(corner(canvas) for pair in batch.demos[row] for canvas in pair))
            assert all(corner(pair[0]) == corner(pair[1]) for pair in batch.demos[row])
            assert corner(batch.inputs[row]) == corner(np.maximum(batch.labels[row], 0))
    assert len(variants) == 64 and len(offsets) > 50 and len(subsets) == 10


def corner(canvas):
    """Row and column of a canvas's top-left colour."""
    coloured = canvas.reshape(10, 10) >= grids.FIRST_COLOUR
    return int(coloured.any(axis=1).argmax()), int(coloured.any(axis=0).argmax())


def match(task, found):
    """The variant under which the row shows the task's query. Its colours 0..9 all occur in the answer."""
    pair = task.queries[0]
    for transform in range(8):
        shown = [augment.dihedral(grid, transform) for grid in (pair.input, pair.output)]
        if [grid.shape for grid in shown] != [grid.shape for grid in found[:2]]:
            continue
        before, after = (np.concatenate([grid.ravel() for grid in pairs]) for pairs in (shown, found[:2]))
        colours = {int(b): int(a) for b, a in zip(before, after, strict=True)}
        if sorted(colours) == sorted(colours.values()) == list(range(10)) and all(
            colours[b] == a for b, a in zip(before.tolist(), after.tolist(), strict=True)
        ):
            return augment.Variant(transform, tuple(colours[c] for c in range(10)))
    raise AssertionError("no variant of the task")


def test_a_saved_position_resumes_exactly():
    tasks, arguments = make_tasks([1, 2, 1]), {"seed": 3, "max_demos": 3, **ONE}
    first = pipeline.train_batches(tasks, CONFIG, **arguments)
    for _ in range(3):
        next(first)
    state = first.get_state()
    expected = take(first, 3)
    second = pipeline.train_batches(tasks, CONFIG, **arguments)
    next(second)  # what it has prefetched by then must not matter
    second.set_state(state)
    assert_same(take(second, 3), expected)


@pytest.mark.parametrize("shares", [2, 4, 8])
def test_processes_share_the_batch_of_one(shares):
    tasks = make_tasks([1, 3, 2])
    whole = train(tasks, 3)
    parts = [train(tasks, 3, shares=shares, share=share) for share in range(shares)]
    assert_same([joined(part) for part in zip(*parts, strict=True)], whole)


def test_an_error_in_the_background_reaches_the_loop():
    """Known fault 16. A grid that does not fit gets past `load_tasks` only by mistake."""
    tasks = make_tasks([1])
    with pytest.raises(ValueError):
        train(tasks, 1, max_grid_size=2)


# ---- Evaluation -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_no_query_of_the_full_set_is_lost_or_doubled(evaluation, batch_size):
    """Known fault 9: queries at the edges of batches."""
    plan = EvalPlan(evaluation, variants=1, seed=0)
    batches = evaluate(plan, batch_size, side=30, max_demos=1)
    assert len(plan) == 419 and len(batches) == -(-419 // batch_size)
    whole = joined(batches)
    assert whole.row[:419].tolist() == list(range(419)) and (whole.row[419:] == -1).all()
    expected = [grids.tokenise(pair.input, 30) for task in evaluation for pair in task.queries]
    np.testing.assert_array_equal(whole.batch.inputs[:419], expected)


def test_padded_rows_hold_nothing():
    plan = EvalPlan(make_tasks([1, 2]), variants=1, seed=0)
    (found,) = evaluate(plan, 8)
    assert found.row.tolist() == [0, 1, 2, -1, -1, -1, -1, -1]
    assert found.variant.tolist() == [0, 1, 1, -1, -1, -1, -1, -1]
    padding = jax.tree.map(lambda leaf: leaf[3:], found.batch)
    assert not padding.inputs.any() and not padding.demos.any() and not padding.demo_mask.any()
    assert (padding.labels == grids.IGNORE).all() and (padding.task == -1).all()


def test_rows_show_their_variant_unshifted():
    tasks = make_tasks([2, 1], demos=5)
    tasks[1] = dataclasses.replace(tasks[1], queries=(Pair(tasks[1].queries[0].input, None),))
    plan = EvalPlan(tasks, variants=5, seed=0)
    whole = joined(evaluate(plan, 4))
    for row, number in enumerate(whole.row[: len(plan)]):
        place = plan.locate(int(number))
        task, variant = tasks[place.task], plan.variant(place.task, place.variant)
        query = task.queries[place.query]
        assert whole.batch.task[row] == place.task
        np.testing.assert_array_equal(whole.batch.inputs[row], grids.tokenise(variant.apply(query.input), 10))
        for slot, demo in enumerate(task.demos[:3]):
            shown = [grids.tokenise(variant.apply(grid), 10) for grid in (demo.input, demo.output)]
            np.testing.assert_array_equal(whole.batch.demos[row, slot], shown)
        if query.output is None:
            assert (whole.batch.labels[row] == grids.IGNORE).all()
        else:
            answer = grids.labels(grids.tokenise(variant.apply(query.output), 10))
            np.testing.assert_array_equal(whole.batch.labels[row], answer)


def test_rows_of_a_variant_are_adjacent_and_share_its_demos():
    plan = EvalPlan(make_tasks([3, 1, 2]), variants=4, seed=0)
    whole = joined(evaluate(plan, 5))
    starts = np.flatnonzero(np.diff(whole.variant[: len(plan)], prepend=-1))
    assert len(starts) == 12 and (np.diff(whole.variant[: len(plan)]) >= 0).all()
    for row in set(range(len(plan))) - set(starts.tolist()):
        np.testing.assert_array_equal(whole.batch.demos[row], whole.batch.demos[row - 1])


def test_evaluation_starts_at_any_batch_and_on_any_process():
    plan = EvalPlan(make_tasks([3, 1, 2]), variants=3, seed=0)
    whole = evaluate(plan, 4)
    assert_same(evaluate(plan, 4, first_batch=2), whole[2:])
    assert evaluate(plan, 4, first_batch=len(whole)) == []
    parts = [evaluate(plan, 4, shares=2, share=share) for share in range(2)]
    assert_same([joined(part) for part in zip(*parts, strict=True)], whole)


def run(plan, tasks, batch_size, predict):
    votes = Votes()
    for batch in evaluate(plan, batch_size):
        plan.vote(votes, batch.row, predict(batch.batch), np.zeros(len(batch.row)))
    return voting.score(votes, tasks, [1, 2])


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_an_oracle_scores_everything_and_a_constant_what_arithmetic_says(evaluation, batch_size):
    """Through variants, batches, crop, inverse and vote, on the real tasks that fit 10×10."""
    tasks = [task for task in evaluation if task.side <= 10]
    plan = EvalPlan(tasks[:20], variants=4, seed=0)
    oracle = run(plan, tasks, batch_size, lambda batch: np.maximum(batch.labels, grids.PAD))
    assert oracle == voting.Score({1: 1.0, 2: 1.0}, {1: 20, 2: 20}, evaluated=20, total=len(tasks),
                                  by_task=dict.fromkeys((task.id for task in tasks[:20]), 1.0))

    # Black looks the same in every variant, so all variants vote for it: right for one query of two of the
    # first task, and wrong for the second.
    constant = grids.tokenise(np.zeros((10, 10), np.uint8), 10)
    black = make_tasks([2, 1])
    zeros = Pair(black[0].queries[0].input, np.zeros((10, 10), np.uint8))
    black[0] = dataclasses.replace(black[0], queries=(zeros, black[0].queries[1]))
    scored = run(EvalPlan(black, 4, 0), black, batch_size, lambda b: np.tile(constant, (len(b.task), 1)))
    assert scored.pass_at == {1: 0.25, 2: 0.25} and scored.solved == {1: 0, 2: 0}
