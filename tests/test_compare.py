"""The command line of a comparison, and what it leaves behind."""

import json
import os
import re
import struct
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from absl import flags
from absl.testing import flagsaver
from tensorboard.compat.proto.event_pb2 import Event

from tests.comparison.fabricate import between, evaluations, run, scalars, seeds, until, write
from trm_jax import compare
from trm_jax.comparison.events import RunError
from trm_jax.comparison.thresholds import THRESHOLDS

ROOT = Path(compare.__file__).parents[1]


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    """O1, R1, L1 and L2, two of them with seeds, compared."""
    root = tmp_path_factory.mktemp("four")
    folders = [*seeds(root, "o1", final=0.7), run(root, "r1", final=0.9), *seeds(root, "l1", final=0.95),
               run(root, "l2", found=until(900, scalars("l2")))]
    compare.compare(compare.load_runs(list(map(str, folders))), root / "report")
    return root


def test_the_terminal_answers_in_fifteen_lines_and_tells_everything_with_all(four, capsys):
    runs = compare.load_runs([str(path) for path in sorted(four.iterdir()) if path.name != "report"])
    compare.compare(runs, four / "report")
    short = capsys.readouterr().out
    assert len(short.splitlines()) <= 15
    assert short.startswith("Online learning trains better: exact accuracy 0.9")
    for word in ("final exact accuracy", "epochs to the same exact accuracy", "held-out score", "difference -0.2",
                 "./launch.sh --config=configs/l2.py", "report.html"):
        assert word in short
    compare.compare(runs, four / "report", everything=True)
    everything = capsys.readouterr().out
    for word in ("token accuracy, all rows", "so far", "ACT steps are alive", "./launch.sh", "needs"):
        assert word in everything


def test_the_summary_is_strict_and_has_every_number(four):
    def refuse(constant):
        raise AssertionError(constant)

    summary = json.loads((four / "report" / "summary.json").read_text(), parse_constant=refuse)
    verdict = summary["verdict"]
    assert verdict["answer"] == "online" and [f["standing"] for f in verdict["findings"]] == ["worse", "worse",
                                                                                              "undecided"]
    assert verdict["findings"][0]["numbers"]["l1"].keys() == {"0", "1", "2"}
    assert verdict["findings"][0]["difference"]["value"] < -0.2
    assert [v["standing"] for v in verdict["validations"]] == ["worse", "worse", "undecided"]
    step = verdict["next_step"]
    assert step["runs"][0].keys() == {"preset", "size", "seed", "overrides", "workdir"}
    assert step["commands"][0][:2] == ["./launch.sh", "--config=configs/l2.py"]
    assert summary["thresholds"] == json.loads(json.dumps(asdict(THRESHOLDS)))
    (l2,) = (group for group in summary["groups"] if group["label"] == "l2")
    assert l2["runs"][0]["unfinished"] and l2["reach"]["0.9"]["epochs"] == {"0": None}


def test_the_page_is_one_file_with_its_curves_and_without_empty_charts(four):
    text = (four / "report" / "report.html").read_text()
    assert not re.search(r"(src|href)=\"(?!data:|#)", text) and "<script" not in text
    titles = re.findall(r"<figcaption>(.*?)</figcaption>", text)
    assert titles[0].startswith("exact accuracy, rows that answer") and len(titles) == text.count("<svg") >= 5
    assert not any("context" in title for title in titles)  # not logged
    assert text.index("<table") < text.index("<svg") < text.index("Criteria")
    assert "var(--g1)" in text and "#d55e00" not in text.split("</style>")[1]


def test_charts_of_nothing_but_zeros_are_left_out(tmp_path):
    found = [run(tmp_path, name, eval__pass_at_2=evaluations(0.0)) for name in ("o1", "l1")]
    compare.compare(compare.load_runs(list(map(str, found))), tmp_path / "report")
    assert "<figcaption>pass@2" not in (tmp_path / "report" / "report.html").read_text()


def test_input_that_cannot_be_compared(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "unsigned").mkdir()
    event = Event(wall_time=1.0, file_version="brain.Event:2").SerializeToString()
    (tmp_path / "unsigned" / "events.out.tfevents.1").write_bytes(
        struct.pack("<Q", len(event)) + bytes(4) + event + bytes(4))  # checksums left at zero
    foreign = write(tmp_path / "foreign", {"Loss/train": between(1.0, 1.0)})
    found = run(tmp_path, "o1")
    for folders, names, axis, message in [
        ([], [], None, "name at least one"),
        ([tmp_path / "nowhere"], [], None, "no such folder"),
        ([tmp_path / "empty"], [], None, "no event files"),
        ([tmp_path], [], None, "holds 4 runs"),
        ([tmp_path / "unsigned"], [], None, "no record in it has a right checksum"),
        ([foreign], [], None, "no known scalar tag"),
        ([found, found], [], None, "named twice"),
        ([found], ["other=O1"], None, "PATH=LABEL"),
        ([write(tmp_path / "bare", {"train/loss": between(1, 1)})], [], "epochs", "not known of any"),
    ]:
        with pytest.raises(RunError, match=message) as raised:
            compare.compare(compare.load_runs(list(map(str, folders)), names), tmp_path / "report", axis)
        assert "\n" not in str(raised.value)


def test_labels(tmp_path):
    folders = [str(run(tmp_path / name, "o1")) for name in "ab"] + [str(run(tmp_path, "l1"))]
    found = compare.load_runs(folders, [f"{folders[0]}=first"])
    assert [one.label for one in found] == ["first", folders[1], "l1"]
    assert [one.label for one in compare.load_runs(folders)] == [*folders[:2], "l1"]
    with pytest.raises(RunError, match="same label"):
        compare.load_runs(folders, [f"{folders[0]}=l1"])


def test_the_command_exits_with_one_line(tmp_path):
    flags.FLAGS.mark_as_parsed()
    with flagsaver.flagsaver(out=str(tmp_path / "report")), pytest.raises(SystemExit) as raised:
        compare.main(["compare", str(tmp_path / "nowhere")])
    assert str(raised.value).startswith("compare: ") and "\n" not in str(raised.value)


def test_a_comparison_starts_without_jax_or_torch_and_with_a_notebook_s_backend_that_is_not_installed():
    code = (
        "import os, sys, trm_jax.compare as compare\n"
        "heavy = {'jax', 'flax', 'torch', 'tensorflow', 'matplotlib.pyplot', 'trm_jax.data.arc'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert 'matplotlib' in sys.modules; print(os.environ['MPLBACKEND'])"
    )
    backend = "module://matplotlib_inline.backend_inline"
    result = subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True, text=True,
                            env=os.environ | {"MPLBACKEND": backend})
    assert result.stdout.strip() == backend
