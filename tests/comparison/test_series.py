"""What is read off a series: smoothing, the last part, levels, axes, and the steps of a sample."""

import numpy as np
import pytest

from tests.comparison.fabricate import BATCHES, original_config, original_scalars, slope, write_run
from trm_jax.comparison.presentation.curves import axis_of_cells, charts
from trm_jax.comparison.record.groups import group_runs
from trm_jax.comparison.record.metrics import COLLAPSE_RATIO, GRADIENT_SHARE, derived, steps_per_sample
from trm_jax.comparison.record.runs import load_run
from trm_jax.comparison.record.series import Series
from trm_jax.comparison.wording import listed, number, with_spread


def line(last: int = 1000, every: int = 10) -> Series:
    """y = x / 1000."""
    steps = np.arange(0, last + 1, every)
    return Series(steps, steps / 1000)


def test_smoothing_is_in_steps_and_leaves_a_line_alone():
    smooth = line().smoothed(100)
    np.testing.assert_allclose(smooth.values[5:-5], line().values[5:-5])
    fine, coarse = line(every=1).smoothed(100), line(every=20).smoothed(100)
    assert fine.values[500] == pytest.approx(coarse.values[25])


def test_levels_are_interpolated():
    assert line().first_reaches(0.505) == pytest.approx(505)
    assert line().first_reaches(0.0) == 0
    assert line().first_reaches(1.5) == np.inf


def test_the_last_tenth():
    mean, spread = line().final_mean_and_spread()
    assert mean == pytest.approx(0.95)
    assert spread == pytest.approx(np.std([0.91, 0.9325, 0.9525, 0.9725, 0.9925], ddof=1), rel=0.1)
    single = Series(np.array([5]), np.array([0.3])).final_mean_and_spread()
    assert single[0] == 0.3 and np.isnan(single[1])


def test_a_counter_survives_its_restart():
    series = Series(np.arange(6), np.array([10.0, 20, 30, 5, 15, 25]))
    assert series.as_counter().values.tolist() == [10, 20, 30, 35, 45, 55]


@pytest.mark.parametrize("act_steps", [1, 4, 16])
def test_steps_per_sample_of_rows_that_march_in_step(act_steps):
    steps = np.arange(10, 2001, 10)
    samples = Series(steps, 256.0 * (1 + (steps - 1) // act_steps))
    measured = steps_per_sample(samples, batch_size=256, halt_max_steps=16)
    assert measured.values.mean() == pytest.approx(act_steps, rel=0.02)


def test_derived_series():
    steps = np.arange(3)
    norms = {
        "grad/encoder_norm": Series(steps, np.array([3.0, 0, 1])),
        "grad/decoder_norm": Series(steps, np.array([4.0, 0, 1])),
    }
    variances = {
        "train/encoder_within_task_var": Series(steps, np.array([1.0, 2, 3])),
        "train/encoder_cross_sample_var": Series(steps, np.array([2.0, 2, 0])),
    }
    made = derived(norms | variances)
    np.testing.assert_allclose(made[GRADIENT_SHARE].values, [9 / 25, 0.5])
    assert made[COLLAPSE_RATIO].values.tolist() == [0.5, 1.0]


def test_axes_of_a_run(tmp_path):
    run = load_run(write_run(tmp_path, original_scalars(), original_config(), seconds_per_batch=3.6), "o1")
    assert run.end == pytest.approx(
        {"updates": BATCHES, "samples": BATCHES * 256, "epochs": 20_000, "hours": 2.5}, rel=0.01
    )
    assert run.axes["epochs"].step_at(10_000) == pytest.approx(BATCHES / 2)
    assert run.progress == pytest.approx(1.0)


def test_logged_epochs_and_samples_go_before_computed_ones(tmp_path):
    scalars = original_scalars() | {"train/epoch": slope(40, 10_000), "train/samples": slope(256, 64_000)}
    run = load_run(write_run(tmp_path, scalars, original_config()), "o1")
    assert (run.end["epochs"], run.end["samples"]) == pytest.approx((10_000, 64_000))


def test_wording():
    assert [number(v) for v in (20_000, 0.87654, 5.4123, 0.0001, float("nan"))] == [
        "20,000",
        "0.877",
        "5.41",
        "0.0001",
        "–",
    ]
    assert with_spread(0.87654, 0.0123) == "0.877 ± 0.012"
    assert with_spread(0.3, 0.0) == "0.300 ± 0"
    assert with_spread(9.6e-16, 6.6e-16) == "9.6e-16 ± 6.6e-16"
    assert listed(["a"]) == "a" and listed(["a", "b", "c"]) == "a, b and c"


@pytest.mark.parametrize("log_every", [1, 50])
def test_curves_end_where_the_run_ends(tmp_path, log_every):
    folder = write_run(tmp_path, original_scalars(log_every=log_every, noise=0.0), original_config())
    (group,) = group_runs([load_run(folder, "o1")])
    chart = next(chart for chart in charts([group]) if chart.metric.tag == "train/accuracy")
    mean = chart.lines[0].mean
    there = np.isfinite(mean)
    x = axis_of_cells(group, "updates")[there]
    assert x[-1] == pytest.approx(BATCHES)
    np.testing.assert_allclose(mean[there], 0.95 * (1 - np.exp(-x / (0.2 * BATCHES))), atol=0.02)
