"""One task in, two attempts out."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from PIL import Image

from tests.data.arc import fakes
from trm_jax.data.arc.tasks import Pair, TaskError
from trm_jax.data.arc.voting import Votes
from trm_jax.errors import ConfigError
from trm_jax.evaluation import pictures
from trm_jax.evaluation.trained import load_trained
from trm_jax.run.mesh import data_mesh
from trm_jax.solve import Solution, as_text, in_rows, main, solve

A, B = np.zeros((2, 3), np.uint8), np.ones((2, 3), np.uint8)


@pytest.fixture(scope="module")
def trained(trained_folder):
    return load_trained(trained_folder / "run", data_mesh(jax.devices()[:1]))


def test_every_variant_votes_on_every_query(trained_folder, trained):
    path = trained_folder / "tasks" / "evaluation" / "t1.json"
    found = solve(path, trained, augmentations=5)
    again = solve(found.task, trained, augmentations=5)
    assert found.task.id == "t1" and found.to_json() == again.to_json()
    assert [query["predictions"] for query in found.to_json()["queries"]] == [5, 5]
    for query in range(2):
        votes = [candidate.votes for candidate in found.attempts(query)]
        assert len(votes) <= 2 and votes == sorted(votes, reverse=True)
    assert [query["predictions"] for query in solve(path, trained).to_json()["queries"]] == [3, 3]  # the run's own


def test_tasks_that_cannot_be_solved(trained_folder, trained):
    with pytest.raises(TaskError, match=r"wide0 has a grid with a side of 7 cells; .* up to 6x6"):
        solve(str(trained_folder / "tasks" / "evaluation" / "wide0.json"), trained)
    with pytest.raises(ConfigError, match=r"eval.augmentations=0"):
        solve(trained_folder / "tasks" / "evaluation" / "t0.json", trained, augmentations=0)


def solution(*ballots, answer=A):
    """Votes on the one query of a task: a grid each."""
    task = fakes.task(np.random.default_rng(0), "t", largest=4)
    task = dataclasses.replace(task, queries=(Pair(task.queries[0].input, answer),))
    votes = Votes()
    for variant, grid in enumerate(ballots):
        votes.add("t", 0, variant, grid, 0.0)
    return Solution(task, votes, 10)


def test_what_is_said_of_the_attempts():
    found = solution(B, A, B, None)
    text = as_text(found, 200)
    assert "query, attempt 1: 2 of 4 votes, confidence 50.0%: wrong" in text
    assert "query, attempt 2: 1 of 4 votes, confidence 50.0%: right" in text
    (query,) = found.to_json()["queries"]
    assert [attempt["right"] for attempt in query["attempts"]] == [False, True]
    assert query["attempts"][1] == {"grid": A.tolist(), "votes": 1, "confidence": 0.5, "right": True}
    assert "answer not known" in as_text(solution(A, answer=None), 200)


def test_predictions_without_any_complete_grid():
    found = solution(None, None)
    assert "query: none of 2 predictions holds a complete grid" in as_text(found, 200)
    assert found.to_json()["queries"] == [{"predictions": 2, "attempts": []}]
    assert pictures.task_picture(found.task, found.votes, 10).shape[2] == 3


def test_a_generator_is_asked_and_shown_as_the_model_sees_it(trained, tmp_path):
    """Of its pairs those that fit the canvas; of these the slots' worth, of how many."""
    rng = np.random.default_rng(0)
    pairs = [fakes.pair(rng, largest=4) for _ in range(40)]
    large = Pair(np.zeros((9, 9), np.uint8), np.zeros((1, 1), np.uint8))
    (tmp_path / "gen.json").write_text(json.dumps([
        {"input": pair.input.tolist(), "output": pair.output.tolist()} for pair in (large, *pairs)]))
    found = solve(tmp_path / "gen.json", trained)
    slots = trained.settings.encoder.max_demos
    assert [pair.digest for pair in found.task.queries + found.task.demos] == [pair.digest for pair in pairs]
    text = as_text(found, 200, coloured=False)
    assert f"demo {slots} of 39" in text and f"demo {slots + 1}" not in text and text.count("\n") < 60
    assert pictures.task_picture(found.task, found.votes, slots).shape[0] < 1000


def test_panels_keep_to_the_terminal():
    panels = [("one", np.zeros((2, 10), np.uint8))] * 5
    for width, rows in ((23, 5), (46, 3), (200, 1)):
        assert in_rows(panels, width).count("\n\n") == rows - 1


def test_training_shows_the_same_tasks_every_time():
    tasks = [fakes.task(np.random.default_rng(i), f"t{i}", largest=4) for i in range(9)]
    votes = Votes()
    votes.add("t1", 0, 0, B, 0.0)
    shown = pictures.watched(tasks, votes, 10)
    assert list(shown) == ["tasks/t0", "tasks/t1", "tasks/t2", "tasks/t3"]
    assert all(picture.dtype == np.uint8 and picture.shape[2] == 3 for picture in shown.values())
    assert (shown["tasks/t1"] != pictures.task_picture(tasks[1], Votes(), 10)).any()


def run(trained_folder, *argv):
    main([f"--workdir={trained_folder / 'run'}", *map(str, argv)])


def test_the_command_writes_text_picture_and_json(trained_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    task = trained_folder / "tasks" / "evaluation" / "t1.json"
    run(trained_folder, task, "--augmentations=4", f"--png={tmp_path / 'a.png'}", f"--json={tmp_path / 'a.json'}")
    text = capsys.readouterr().out
    assert "task t1" in text and "query 2" in text and "\x1b[48;2;" in text
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["task"] == "t1" and [query["predictions"] for query in found["queries"]] == [4, 4]
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.format == "PNG" and picture.width > 300


def test_a_searched_context_answers_beside_the_encoders(trained_folder, tmp_path, capsys):
    task = trained_folder / "tasks" / "evaluation" / "t1.json"
    plain, searched = tmp_path / "a.json", tmp_path / "b.json"
    run(trained_folder, task, f"--json={plain}")
    assert "latent search" not in capsys.readouterr().out
    run(trained_folder, task, f"--json={searched}", "--config.eval.search_steps=2",
        "--config.eval.search_lr=0.3")  # as in test_evaluate, whose program it is
    assert capsys.readouterr().out.count("without the latent search, query ") >= 2
    before, found = (json.loads(file.read_text()) for file in (plain, searched))
    assert [[attempt["grid"] for attempt in query["attempts"]] for query in found["without_search"]] == \
        [[attempt["grid"] for attempt in query["attempts"]] for query in before["queries"]]
    assert "without_search" not in before and [query["predictions"] for query in found["queries"]] == [3, 3]
    assert "eval.search_steps=-1" in failure(trained_folder, task, "--config.eval.search_steps=-1")
    assert "of a trained run only" in failure(trained_folder, task, "--config.optim.lr=1")


def failure(trained_folder, *argv):
    with pytest.raises(SystemExit) as error:
        run(trained_folder, *argv)
    assert error.value.code not in (0, None)
    return str(error.value.code)


def test_errors_are_one_line_and_leave_nothing_behind(trained_folder, tmp_path, capsys):
    file, png = tmp_path / "task.json", f"--png={tmp_path / 'a.png'}"
    for content, message in (("{", "malformed JSON"), ("[]", "not of the form"),
                             ('{"train": [{"input": [[1]], "output": [[1]]}], "test": []}', "has no test inputs"),
                             ('{"train": [], "test": [{"input": [[1]]}]}', "has no demonstrations")):
        file.write_text(content)
        assert message in failure(trained_folder, file, png)
    assert "no such file" in failure(trained_folder, tmp_path / "none.json", png)
    assert "neither a task file nor an id" in failure(trained_folder, "0057622", png)
    task = trained_folder / "tasks" / "evaluation" / "t0.json"
    assert "no checkpoint of step 3" in failure(trained_folder, task, png, "--step=3")
    failure(trained_folder, task, f"--json={tmp_path / 'none' / 'a.json'}")
    assert "there is no folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["task.json"]
