"""Seeds of one configuration: their spread, and what differs by more than it."""

import numpy as np
import pytest

from tests.comparison.fabricate import online_config, online_scalars, original_config, original_scalars, write_run
from tests.comparison.judging import verdict_of, write_seeds
from trm_jax import compare
from trm_jax.comparison.judgement.contests import ORIGINAL, UNDECIDED
from trm_jax.comparison.judgement.verdict import judge
from trm_jax.comparison.record.groups import Estimate, Standing, difference, estimate, group_runs


def test_seeds_are_grouped(tmp_path):
    original = write_seeds(tmp_path, [0.94, 0.95, 0.96], "o1", original_scalars, original_config)
    online = write_seeds(tmp_path, [0.90, 0.89, 0.91], "l1", online_scalars, online_config)
    groups = group_runs(compare.load_runs([str(run) for run in original + online], []))
    assert [(group.label, group.seeds) for group in groups] == [("o1", 3), ("l1", 3)]
    final = groups[0].final("train/accuracy")
    assert final.mean == pytest.approx(0.943, abs=0.003)
    assert final.spread == pytest.approx(0.01, abs=0.002)
    assert judge(groups).answer == ORIGINAL


def test_seeds_that_overlap_are_undecided(tmp_path):
    """The means lie 0.05 apart; a pair of single seeds happens to lie 0.06 apart."""
    original = write_seeds(tmp_path, [0.99, 0.90, 0.96], "o1", original_scalars, original_config)
    online = write_seeds(tmp_path, [0.84, 0.93, 0.93], "l1", online_scalars, online_config)
    alone = verdict_of(original[0], online[1])
    assert (alone.answer, "one seed each" in alone.headline) == (ORIGINAL, True)
    assert verdict_of(*original, *online).answer == UNDECIDED


def test_runs_of_the_same_seed_are_one_seed(tmp_path):
    runs = [
        write_run(tmp_path / f"{name}_{copy}", scalars(final), config())
        for name, scalars, final, config in (
            ("o1", original_scalars, 0.95, original_config),
            ("l1", online_scalars, 0.91, online_config),
        )
        for copy in "ab"
    ]
    groups = group_runs(compare.load_runs([str(run) for run in runs], []))
    assert [(len(group.runs), group.seeds) for group in groups] == [(2, 1), (2, 1)]
    verdict = judge(groups)
    assert verdict.contests[0].difference.noise >= 0.05
    assert verdict.answer == UNDECIDED
    assert any("count as one" in caveat for caveat in verdict.caveats)


def test_one_seed_against_one():
    gap = difference(Estimate(0.95, 0.001, 1), Estimate(0.89, 0.001, 1), floor=0.05)
    assert (gap.value, gap.noise) == pytest.approx((0.06, 0.05))
    assert (gap.standing(0.02), (-gap).standing(0.02)) == (Standing.ABOVE, Standing.BELOW)
    restless = difference(Estimate(0.95, 0.03, 1), Estimate(0.89, 0.04, 1), floor=0.05)
    assert restless.noise == pytest.approx(0.1)


def test_several_seeds_against_several():
    """Two samples of three: t(4) = 2.78, pooled standard deviation 0.01."""
    gap = difference(estimate([0.94, 0.95, 0.96]), estimate([0.93, 0.94, 0.95]), floor=0.05)
    assert gap.noise == pytest.approx(2.78 * 0.01 * np.sqrt(2 / 3))
    assert gap.standing(0.02) == Standing.UNDECIDED
    assert gap.is_not_below(0.02)


@pytest.mark.parametrize("spread", [0.0, 0.005, 0.01, 0.017])
def test_a_seed_more_on_one_side_makes_nothing_less_decided(spread):
    """As long as the seeds lie no further apart than the floor says they do."""
    single = Estimate(0.9, 0.001, 1)
    noises = [
        difference(Estimate(0.95, spread if seeds > 1 else 0.001, seeds), single, floor=0.05).noise
        for seeds in (1, 2, 3, 5)
    ]
    assert noises == pytest.approx([0.05] * 4)


def test_seeds_that_lie_far_apart_are_believed():
    single = Estimate(0.9, 0.001, 1)
    two, five = (difference(Estimate(0.95, 0.06, seeds), single, floor=0.05).noise for seeds in (2, 5))
    assert 0.1 < two < five < 0.12
