"""Every golden case is read by some test: a kind that none knows is a failure."""

import pytest

from tests import parity

MODES = {"C": {"online"}, "D": {"cached", "reencode"}}
SINGLE = {"E": {"adam_atan2", "lr_schedule", "ema", "losses"}, "F": {"arc_data"},
          "G": {"trm_sparse_embedding"}}


@pytest.mark.parity
@pytest.mark.parametrize("case", parity.all_cases(), ids=str)
def test_some_test_reads_the_case(case):
    group = case.info["group"]
    assert group in "ABCDEFG", f"no test reads cases of group {group}"
    if group in MODES:
        assert case.info["mode"] in MODES[group]
    if group in SINGLE:
        assert any(case.name.startswith(kind) for kind in SINGLE[group])
