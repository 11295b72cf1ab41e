"""Training tasks kept back to choose settings by."""

import json

import numpy as np
import pytest

from tests import tiny
from tools.keep_back import main
from trm_jax.data.arc import sources


def test_every_nth_training_task_is_kept_back_and_no_evaluation_task_is_touched(tmp_path, capsys):
    given = tiny.write_tasks(tmp_path / "tasks")
    shared = json.loads((given / "evaluation" / "e0000002.json").read_text())
    (given / "training" / "t0000002.json").write_text(json.dumps(shared))
    main([f"--source=json:{given}", "--every=2", f"--out={tmp_path / 'kept'}"])
    assert "1 tasks to train on, 2 kept back" in capsys.readouterr().out
    before, after = sources.load(f"json:{given}"), sources.load(f"json:{tmp_path / 'kept'}")
    assert [task.id for task in after.train] == ["t0000001"]
    assert [task.id for task in after.evaluation] == ["t0000000", "t0000003"]
    for task in after.train + after.evaluation:
        (same,) = (other for other in before.train if other.id == task.id)
        assert task.digest == same.digest and len(task.demos) == 3
        np.testing.assert_array_equal(task.queries[0].output, same.queries[0].output)


def test_what_cannot_be_kept_back(tmp_path):
    given = tiny.write_tasks(tmp_path / "tasks")
    for words, message in (([f"--source=json:{given}", f"--out={tmp_path}"], "is there already"),
                           ([f"--source=json:{given / 'training'}", f"--out={tmp_path / 'a'}"], "does not say which"),
                           (["--source=json:nowhere", f"--out={tmp_path / 'a'}"], "no such")):
        with pytest.raises(SystemExit, match=message):
            main(words)
    assert not (tmp_path / "a").exists()
