"""The command line of a comparison."""

import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags
from absl.testing import flagsaver

from tests.comparison.fabricate import level, original_config, original_scalars, write_run
from trm_jax import compare
from trm_jax.comparison.record.events import RunError


def test_input_that_cannot_be_compared(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    foreign = write_run(tmp_path / "foreign", {"Loss/train": level(1.0)})
    run = write_run(tmp_path / "o1", original_scalars(), original_config())
    for folders, names, message in [
        ([], [], "name at least one"),
        ([tmp_path / "nowhere"], [], "no such folder"),
        ([empty], [], "no event files"),
        ([tmp_path], [], "holds 2 runs"),
        ([foreign], [], "no known scalar tag"),
        ([run, run], [], "named twice"),
        ([run], ["other=O1"], "PATH=LABEL"),
    ]:
        with pytest.raises(RunError, match=message) as raised:
            compare.load_runs([str(folder) for folder in folders], names)
        assert "\n" not in str(raised.value)


def test_the_command_exits_with_one_line(tmp_path):
    flags.FLAGS.mark_as_parsed()
    with flagsaver.flagsaver(out=str(tmp_path / "report")), pytest.raises(SystemExit) as raised:
        compare.main(["compare", str(tmp_path / "nowhere")])
    assert str(raised.value).startswith("compare: ") and "\n" not in str(raised.value)


def test_a_comparison_starts_without_jax_or_torch():
    code = (
        "import sys, trm_jax.compare as compare\n"
        "heavy = {'jax', 'flax', 'torch', 'tensorflow', 'trm_jax.data.arc', 'trm_jax.models'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(compare.__file__).parents[1])
