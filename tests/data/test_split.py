import dataclasses
import json

import numpy as np
import pytest

from tests.data.arc import fakes
from tests.data.batches import CONFIG, make_tasks
from trm_jax.data.arc import sources
from trm_jax.data.arc.tasks import Pair, Task, set_digest
from trm_jax.data.split import load_tasks
from trm_jax.errors import ConfigError


def test_tasks_are_dropped_left_out_and_limited_and_the_log_says_so():
    split = load_tasks(dataclasses.replace(CONFIG, max_train_groups=32, max_eval_groups=5))
    assert [len(split.train), len(split.evaluation), len(split.all_evaluation)] == [32, 5, 400]
    assert max(task.side for task in split.train + split.evaluation) <= 10
    report = "\n".join(split.report)
    assert "40853293" in report and "do not fit 10x10" in report and "the first 32 of" in report
    assert not {task.digest for task in split.train} & {task.digest for task in split.all_evaluation}


def test_a_source_without_a_split_is_used_whole_and_reported(tmp_path):
    known, unknown = make_tasks([1, 1])
    unknown = dataclasses.replace(unknown, queries=(Pair(unknown.queries[0].input, None),))
    for task in (known, unknown):
        (tmp_path / f"{task.id}.json").write_text(json.dumps(fakes.content(task)))
    split = load_tasks(dataclasses.replace(CONFIG, source=f"json:{tmp_path}"))
    assert [[task.id for task in part] for part in (split.train, split.evaluation)] == [["t0"], ["t0", "t1"]]
    assert "not held out" in split.report[0] and "t1" in split.report[1]


def write(folder, training, evaluation):
    for name, found in (("training", training), ("evaluation", evaluation)):
        (folder / name).mkdir(parents=True)
        for task in found:
            (folder / name / f"{task.id}.json").write_text(json.dumps(fakes.content(task)))
    return f"json:{folder}"


def contents(tasks):
    return [(task.id, [pair.digest for pair in task.demos], [pair.digest for pair in task.queries]) for task in tasks]


def test_every_pair_a_query_takes_tasks_with_two_answered_pairs(tmp_path):
    tasks = make_tasks([2, 1, 1, 1], demos=1)
    hidden = Pair(tasks[1].queries[0].input, None)
    tasks[1] = dataclasses.replace(tasks[1], queries=(hidden,))
    source = write(tmp_path, tasks[:3], tasks[3:])
    split = load_tasks(dataclasses.replace(CONFIG, source=source, queries="all"))
    assert contents(split.train) == [
        (task.id, [pair.digest for pair in task.pairs], []) for task in (tasks[0], tasks[2])]
    assert any("single answered pair" in line and "t1" in line for line in split.report)


def test_what_is_trained_on_does_not_depend_on_an_evaluation_answer(tmp_path):
    """Neither on their cells nor on their sizes, nor on whether a train task has the same ones."""
    rng = np.random.default_rng(1)
    training, evaluation = make_tasks([1, 2]), [fakes.task(rng, f"v{i}", 3, 1, largest=7) for i in range(3)]
    training.append(dataclasses.replace(evaluation[0], id="copy"))
    evaluation.append(fakes.task(rng, "single", demos=1, largest=7))

    def changed(task: Task) -> Task:
        answer = np.zeros((20, 20), np.uint8)  # too large for the canvas, too
        return dataclasses.replace(task, queries=tuple(Pair(query.input, answer) for query in task.queries))

    config = dataclasses.replace(CONFIG, evaluation_demos=True, max_eval_groups=2)
    found = [load_tasks(dataclasses.replace(config, source=write(tmp_path / str(i), training, tasks), queries=queries))
             for i, (tasks, queries) in enumerate([(evaluation, "test"), ([*map(changed, evaluation)], "test"),
                                                   (evaluation, "all")])]
    assert contents(found[0].train) == contents(found[1].train)
    assert [task.id for task in found[0].train] == ["t0", "t1", "v0", "v1", "v2"]
    assert contents(found[0].train[2:]) == contents(found[2].train[2:]) == [
        (task.id, [pair.digest for pair in task.demos], []) for task in evaluation[:3]]
    assert len(found[0].evaluation) == 2 and not found[1].evaluation
    report = "\n".join(found[0].report)
    assert "transductive: the demonstrations of 3 evaluation tasks" in report and "single" in report
    assert "also stand in the evaluation set: dropped copy" in report


def test_tasks_of_ones_own_are_adapted_to_without_their_answers(tmp_path):
    tasks = make_tasks([1, 2])
    for task in tasks:
        (tmp_path / f"{task.id}.json").write_text(json.dumps(fakes.content(task)))
    config = dataclasses.replace(CONFIG, source=f"json:{tmp_path}", evaluation_demos=True)
    for changes in ({}, {"training_tasks": False}, {"queries": "all"}):
        split = load_tasks(dataclasses.replace(config, **changes))
        assert contents(split.train) == [(task.id, [pair.digest for pair in task.demos], []) for task in tasks]
        assert [task.id for task in split.evaluation] == ["t0", "t1"]
        assert not any("not held out" in line for line in split.report)


@pytest.mark.parametrize("change, message", [
    ({"queries": "none"}, "data.queries='none' is unknown"),
    ({"variants": -1}, "data.variants=-1 must be at least 0"),
    ({"variants": 3_000_000}, "at most 2903040"),
    ({"training_tasks": False}, "leaves nothing to train on; set data.evaluation_demos=True"),
])
def test_impossible_choices_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(CONFIG, **change)


def test_a_generator_s_pairs_may_each_be_asked_and_one_is_kept_for_the_score(tmp_path):
    """RE-ARC's form: a list of pairs. Pairs that do not fit the canvas are left out, not the generator."""
    rng = np.random.default_rng(4)
    pairs = [fakes.pair(rng, largest=7) for _ in range(6)]
    large = Pair(np.zeros((11, 1), np.uint8), np.zeros((1, 1), np.uint8))
    generator = [{"input": pair.input.tolist(), "output": pair.output.tolist()} for pair in (*pairs, large)]
    (tmp_path / "gen.json").write_text(json.dumps(generator))
    split = load_tasks(dataclasses.replace(CONFIG, source=f"json:{tmp_path}"))
    digests = [pair.digest for pair in pairs]
    assert contents(split.train) == [("gen", digests[1:], [])]
    assert contents(split.evaluation) == [("gen", digests[1:], digests[:1])]
    assert split.edition.queries == 1 and split.edition.digest == set_digest(sources.load(f"json:{tmp_path}").train)
    assert split.report[0].endswith("one pair of each generator is kept to be asked when it is scored, its others are "
                                    "trained on") and not any("not held out" in line for line in split.report)
    (tmp_path / "two.json").write_text(json.dumps(generator[:2]))  # of which nothing is left to show
    for queries in ("test", "all"):
        split = load_tasks(dataclasses.replace(CONFIG, source=f"json:{tmp_path}", queries=queries))
        assert [task.id for task in split.train] == ["gen"] and len(split.evaluation) == 2
        assert "single answered pair" in split.report[1] and split.report[1].endswith("not trained on two")
    (tmp_path / "two.json").unlink()
    source = write(tmp_path / "beside", [], make_tasks([1]))
    (tmp_path / "beside" / "training" / "gen.json").write_text(json.dumps(generator))
    assert contents(load_tasks(dataclasses.replace(CONFIG, source=source)).train) == [("gen", digests, [])]
