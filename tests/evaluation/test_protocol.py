"""What a score is called, by what stands among the pairs that a run and those before it were trained on."""

import dataclasses

import numpy as np
import pytest

from configs import base
from tests import tiny
from tests.data.arc import fakes
from trm_jax.data.arc.tasks import pair_digests
from trm_jax.errors import ConfigError
from trm_jax.evaluation.protocol import protocol_of
from trm_jax.run.ancestry import ANCESTRY_FILE, Ancestor, held_out_note, read
from trm_jax.run.record import ancestor

DATA = dataclasses.replace(tiny.settings(base.get_config()).data, source="json:nowhere", evaluation_demos=True)
OURS, THEIRS = ([fakes.task(np.random.default_rng(seed), f"t{i}", demos=3) for i in range(2)] for seed in (0, 1))


def shown(found):
    return [dataclasses.replace(task, queries=()) for task in found]


def run(found):
    return ancestor("a run", DATA, pair_digests(found))


@pytest.mark.parametrize(("descent", "adapted", "word"), [
    ([run(THEIRS)], False, "held out"),  # transductive, but of other tasks
    ([run(shown(OURS))], False, "transductive"),
    ([run([*THEIRS, *shown(OURS[:1])])], False, "transductive"),
    ([run(OURS)], True, "trained on"),
    ([run(THEIRS), run(THEIRS)], True, "held out"),
    ([run(THEIRS), run(shown(OURS))], True, "adapted"),
    ([run(shown(OURS)), run(THEIRS)], True, "transductive"),
    ([run(OURS), run(shown(OURS))], True, "trained on"),
    ([Ancestor("a file", None, None), run(THEIRS)], False, "held out"),
    ([Ancestor("a file", None, "its table"), run(THEIRS)], False, "transductive"),
    ([ancestor("a run", DATA, None), run(shown(OURS))], True, "not told"),  # of an earlier version; its data are gone
    ([ancestor("a run", DATA, None), run(OURS)], True, "trained on"),
])
def test_the_pairs_say_it_wherever_the_data_are_now(descent, adapted, word):
    found = protocol_of(OURS, descent, adapted)
    assert found.word == word
    assert ("json:nowhere: no such folder" in " ".join(found.notes)) == (descent[0].pairs is None and
                                                                         descent[0].data is not None)


def test_a_note_stands_for_what_pairs_cannot_say():
    assert held_out_note([run(OURS), Ancestor("a file", None, None)]) is None
    assert "a file was itself trained" in held_out_note([run(OURS), Ancestor("a file", None, "its table")])


@pytest.mark.parametrize("content", ["{", "[]", '{"ancestors": [{"whose": "?"}]}'])
def test_a_damaged_line_of_descent_is_one_line(content, tmp_path):
    (tmp_path / ANCESTRY_FILE).write_text(content)
    with pytest.raises(ConfigError, match=r"pretrained\.json, which says what .* cannot be read: \S[^\n]*$"):
        read(tmp_path)
