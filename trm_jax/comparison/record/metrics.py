"""The metrics of the experiment plan, one row each, in the order of every table and plot."""

from dataclasses import dataclass

import numpy as np

from trm_jax.comparison.record.series import Series

LEVELS = (0.5, 0.8, 0.9)  # train accuracies whose time to reach is reported
AXES = {  # what runs can be laid over each other by, in the order of the tables
    "updates": "optimiser updates",
    "samples": "samples seen",
    "epochs": "epochs",
    "hours": "wall-clock hours",
}


@dataclass(frozen=True)
class Metric:
    tag: str
    title: str
    topic: str
    better: str = ""  # "high", "low", or "" where neither is
    log_scale: bool = False

    @property
    def is_evaluation(self) -> bool:
        return self.tag.startswith("eval/")


SAMPLES = "train/samples"  # rows let in since the start
STEPS = "train/steps"
STEPS_PER_SAMPLE = "train/steps_per_sample"
GRADIENT_SHARE = "grad/encoder_share"
COLLAPSE_RATIO = "train/encoder_collapse_ratio"
RELATIVE_VAR = "train/encoder_relative_var"  # 0 where the context is the same for everything

METRICS = (
    Metric("train/accuracy", "token accuracy", "Learning", "high"),
    Metric("train/exact_accuracy", "exact accuracy", "Learning", "high"),
    Metric("train/halted_accuracy", "token accuracy, rows that halt", "Learning", "high"),
    Metric("train/halted_exact_accuracy", "exact accuracy, rows that halt", "Learning", "high"),
    Metric("train/loss", "loss", "Learning", "low", log_scale=True),
    Metric("train/lm_loss", "token loss", "Learning", "low", log_scale=True),
    Metric("train/kl_loss", "KL to the prior", "Learning", log_scale=True),
    Metric("eval/pass@1", "pass@1", "Held-out tasks", "high"),
    Metric("eval/pass@2", "pass@2", "Held-out tasks", "high"),
    Metric("eval/exact_accuracy", "exact accuracy, held out", "Held-out tasks", "high"),
    Metric("eval/accuracy", "token accuracy, held out", "Held-out tasks", "high"),
    Metric("eval/q_halt_accuracy", "Q-head accuracy, held out", "Held-out tasks", "high"),
    Metric("train/q_halt_accuracy", "Q-head accuracy", "Halting", "high"),
    Metric(STEPS_PER_SAMPLE, "ACT steps that a sample takes", "Halting"),
    Metric(STEPS, "ACT steps, mean over rows", "Halting"),
    Metric("train/q_halt_loss", "Q-head loss", "Halting", "low", log_scale=True),
    Metric(RELATIVE_VAR, "context variance / mean square (0: constant)", "Encoder", log_scale=True),
    Metric(
        COLLAPSE_RATIO,
        "collapse ratio (1: tasks not told apart; void without augmentation)",
        "Encoder",
        "low",
        log_scale=True,
    ),
    Metric(GRADIENT_SHARE, "encoder's share of the squared gradient", "Encoder"),
    Metric("grad/encoder_norm", "encoder gradient norm", "Encoder", log_scale=True),
    Metric("train/encoder_cross_sample_var", "context variance across tasks", "Encoder", log_scale=True),
    Metric("train/encoder_norm", "context norm", "Encoder"),
    Metric("train/encoder_grad_rows", "share of rows that train the encoder", "Encoder"),
    Metric(
        "train/posterior_mean_var",
        "variance of the posterior's mean (0: the latent says nothing)",
        "Encoder",
        log_scale=True,
    ),
    Metric("train/posterior_std", "posterior standard deviation", "Encoder"),
    Metric("grad/total_norm", "gradient norm", "Speed and stability", log_scale=True),
    Metric("perf/samples_per_s", "samples per second", "Speed and stability", "high"),
    Metric("perf/step_ms", "milliseconds per batch", "Speed and stability", "low"),
    Metric("perf/data_wait_ms", "milliseconds waiting for data", "Speed and stability", "low"),
    Metric("train/lr", "learning rate", "Speed and stability"),
)
BY_TAG = {metric.tag: metric for metric in METRICS}
TOPICS = tuple(dict.fromkeys(metric.topic for metric in METRICS))


def derived(series: dict[str, Series]) -> dict[str, Series]:
    """`series` with the encoder's gradient share, and with the collapse ratio if it was not logged.

    The share is ‖g_encoder‖² / (‖g_encoder‖² + ‖g_decoder‖²); the ratio is the variance of the context within
    a task over that across tasks.
    """
    made = {}
    norms = _together(series, "grad/encoder_norm", "grad/decoder_norm")
    if norms is not None:
        steps, encoder, decoder = norms
        total = encoder**2 + decoder**2
        made[GRADIENT_SHARE] = Series(steps[total > 0], (encoder**2)[total > 0] / total[total > 0])
    variances = _together(series, "train/encoder_within_task_var", "train/encoder_cross_sample_var")
    if variances is not None and COLLAPSE_RATIO not in series:
        steps, within, across = variances
        made[COLLAPSE_RATIO] = Series(steps[across > 0], within[across > 0] / across[across > 0])
    return series | {tag: values for tag, values in made.items() if len(values)}


def steps_per_sample(samples: Series, batch_size: int, halt_max_steps: int) -> Series | None:
    """ACT steps that a sample takes before it halts, from the count of samples that were let in.

    Every batch makes one ACT step on each of its rows, so that is rows · batches / samples. `train/steps`
    cannot stand for it: our runs log its mean over all rows, which is about half the maximum, and swings,
    when every row runs to the maximum. Windows hold whole rounds of the longest sample, else rows that march
    in step would make them swing as well.

    Args:
        samples: `train/samples`, the rows let in since the start.
    """
    if len(samples) < 2:
        return None
    rounds = max(2, int(np.ceil(samples.spacing_steps / halt_max_steps)))
    ends = np.arange(samples.steps[0], samples.steps[-1] + 1, rounds * halt_max_steps)
    entered = np.diff(np.interp(ends, samples.steps, samples.values))
    steps, entered = ends[1:][entered > 0], entered[entered > 0]
    return Series(steps, batch_size * rounds * halt_max_steps / entered) if len(steps) else None


def _together(
    series: dict[str, Series], first: str, second: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """The steps at which both tags were logged, and their values there; None where a tag is missing."""
    if first not in series or second not in series:
        return None
    steps, at_first, at_second = np.intersect1d(
        series[first].steps, series[second].steps, assume_unique=True, return_indices=True
    )
    return steps, series[first].values[at_first], series[second].values[at_second]
