import copy
import dataclasses

import numpy as np
import pytest

from tests.data.arc import fakes, golden
from trm_jax.data.arc import augment, grids, tasks
from trm_jax.data.arc.tasks import Pair, Task, TaskError

GOOD = {"train": [{"input": [[1]], "output": [[2]]}], "test": [{"input": [[3, 3]]}]}


def test_parse_reads_demos_and_queries():
    task = tasks.parse("t1", GOOD, "t1.json")
    assert task.id == "t1" and len(task.demos) == len(task.queries) == 1
    assert task.demos[0].output.tolist() == [[2]] and task.queries[0].output is None
    assert task.side == 2 and task.answers == {}


def changed(change):
    content = copy.deepcopy(GOOD)
    change(content)
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "not of the form"),
        (changed(lambda c: c.pop("train")), "no demonstrations"),
        (changed(lambda c: c.update(train=[])), "no demonstrations"),
        (changed(lambda c: c.update(train=None)), "no demonstrations"),
        (changed(lambda c: c.pop("test")), "no test inputs"),
        (changed(lambda c: c.update(test=[])), "no test inputs"),
        (changed(lambda c: c["train"][0].pop("output")), r"train\[0\]: has no output"),
        (changed(lambda c: c["test"][0].pop("input")), r"test\[0\]: has no input"),
        (changed(lambda c: c.update(test=[[[3]]])), r"test\[0\]: not of the form"),
        (changed(lambda c: c["test"][0].update(input=[[0] * 31])), r"test\[0\].input: is 1x31, larger than"),
        (changed(lambda c: c["train"][0].update(output=[[0], [0, 1]])), r"train\[0\].output: is ragged"),
        (changed(lambda c: c["train"][0].update(input=[[10]])), r"train\[0\].input: holds colour 10"),
    ],
)
def test_bad_content_is_one_line_with_file_and_task(content, message):
    with pytest.raises(TaskError, match=message) as error:
        tasks.parse("t1", content, "some.json")
    assert str(error.value).startswith("some.json: task t1: ") and "\n" not in str(error.value)


def test_the_digest_goes_by_content_not_by_order_or_id():
    task = fakes.task(np.random.default_rng(0), "a", demos=3, queries=2)
    moved = Task("b", (task.queries[0], *task.demos[1:]), (task.demos[0], task.queries[1]))
    assert moved.digest == task.digest
    swapped = dataclasses.replace(task, queries=tuple(Pair(q.output, q.input) for q in task.queries))
    assert swapped.digest != task.digest


def test_shared_tasks_are_dropped_by_id_and_by_content():
    rng = np.random.default_rng(0)
    a, b, c, d = (fakes.task(rng, name) for name in "abcd")
    renamed = dataclasses.replace(b, id="x")
    kept, dropped = tasks.without_shared((a, b, c), (renamed, dataclasses.replace(d, id="c")))
    assert kept == (a,) and dropped == ("b", "c")


def test_fitting_parts_by_the_largest_grid():
    rng = np.random.default_rng(0)
    small, wide = fakes.task(rng, "small", largest=4), fakes.task(rng, "wide", largest=4)
    wide = dataclasses.replace(wide, queries=(Pair(np.zeros((1, 5), np.uint8), None),))
    assert tasks.fitting((small, wide), 4) == ((small,), ("wide",))
    assert tasks.fitting((small, wide), 5) == ((small, wide), ())


@pytest.mark.parity
@pytest.mark.parametrize("case", golden.CASES, ids=str)
def test_golden_task_digests(case):
    found = golden.puzzles(case)
    for task_id, expected in golden.read(case, "puzzle_hash.json").items():
        assert found[task_id].digest == expected


@pytest.mark.parity
@pytest.mark.parametrize("case", golden.CASES, ids=str)
def test_golden_conversion(case):
    """Every variant that the PyTorch project wrote out, made again from its name."""
    recorded, found = golden.read(case, "convert.json"), golden.puzzles(case)
    for part, (split, _) in ((part, place.split("/")) for part, place in recorded["dest_mapping"].items()):
        for group in recorded["result"][split]:
            for puzzle in group:
                task_id, variant = augment.parse(puzzle["id"])
                pairs = {"train": found[task_id].demos, "test": found[task_id].queries}[part]
                shown = [[variant.apply(pair.input), variant.apply(pair.output)] for pair in pairs]
                assert [[*map(grids.digest, pair)] for pair in shown] == puzzle["pair_hashes"]
                assert len(pairs) == puzzle["examples"]
