"""What a run logs, a row each, in the order of every table and chart: TensorBoard's layout, `compare` and `evaluate`.

Nothing of JAX is imported here, so that reading runs needs none.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """One scalar.

    Attributes:
        title: what it is called wherever it is shown; `held_out` ones say so by their topic.
        better: "up", "down", or "" where neither direction is better.
        share: it lies between 0 and 1 and is shown in percent by `evaluate`.
    """

    tag: str
    title: str
    topic: str
    better: str = ""
    log_scale: bool = False
    share: bool = False

    @property
    def name(self) -> str:
        """The tag without its group: `pass@2`."""
        return self.tag.partition("/")[2]

    @property
    def is_evaluation(self) -> bool:
        return self.tag.startswith("eval/")


EXACT = "train/exact_accuracy"  # over all rows
ANSWERED = "train/halted_exact_accuracy"  # over rows that answer: they halt, or are at the last ACT step of a batch
TOKENS = "train/accuracy"
Q_HEAD = "train/q_halt_accuracy"
STEPS = "train/steps"  # of ours over all rows, their last step or not; of PyTorch runs over rows that halt
HALTED_STEPS = "train/halted_steps"  # over rows that halt
LOSS = "train/loss"
PASS_2 = "eval/pass@2"
LEARNING, HELD_OUT, HALTING, ENCODER, SPEED = "learning", "held-out tasks", "halting", "encoder", "speed"

METRICS = (
    Metric(ANSWERED, "exact accuracy, rows that answer", LEARNING, "up", share=True),
    Metric(EXACT, "exact accuracy, all rows", LEARNING, "up", share=True),
    Metric("train/halted_accuracy", "token accuracy, rows that answer", LEARNING, "up", share=True),
    Metric(TOKENS, "token accuracy, all rows", LEARNING, "up", share=True),
    Metric(LOSS, "loss", LEARNING, "down", log_scale=True),
    Metric("train/lm_loss", "token loss", LEARNING, "down", log_scale=True),
    Metric("train/kl_loss", "KL to the prior", LEARNING, log_scale=True),
    Metric("eval/pass@1", "pass@1", HELD_OUT, "up", share=True),
    Metric(PASS_2, "pass@2", HELD_OUT, "up", share=True),
    Metric("eval/exact_accuracy", "exact accuracy, held out", HELD_OUT, "up", share=True),
    Metric("eval/accuracy", "token accuracy, held out", HELD_OUT, "up", share=True),
    Metric("eval/q_halt_accuracy", "Q-head accuracy, held out", HELD_OUT, "up", share=True),
    Metric("eval/steps", "mean ACT steps, held out", HELD_OUT),
    Metric(Q_HEAD, "Q-head accuracy", HALTING, "up", share=True),
    Metric(HALTED_STEPS, "ACT steps, rows that halt", HALTING),
    Metric(STEPS, "ACT steps, all rows", HALTING),
    Metric("train/q_halt_loss", "Q-head loss", HALTING, "down", log_scale=True),
    Metric("train/encoder_relative_var", "context: variance / mean square (0: constant)", ENCODER, log_scale=True),
    Metric("eval/encoder_relative_var", "context: variance / mean square, held out", ENCODER, log_scale=True),
    Metric("train/encoder_collapse_ratio", "context: collapse ratio (1: tasks not told apart)", ENCODER, "down"),
    Metric("eval/encoder_collapse_ratio", "context: collapse ratio, held out", ENCODER, "down"),
    Metric("train/encoder_cross_sample_var", "context: variance over tasks", ENCODER, log_scale=True),
    Metric("train/encoder_within_task_var", "context: variance within a task", ENCODER, log_scale=True),
    Metric("train/encoder_norm", "context: norm", ENCODER),
    Metric("train/contrastive_loss", "contrastive loss (0: variants of a task nearest)", ENCODER, "down"),
    Metric("grad/encoder_norm", "encoder: gradient norm", ENCODER, log_scale=True),
    Metric("grad/decoder_norm", "decoder: gradient norm", ENCODER, log_scale=True),
    Metric("train/encoder_grad_rows", "encoder: share of rows with gradient", ENCODER, share=True),
    Metric("train/posterior_mean_var", "posterior mean: variance (0: says nothing)", ENCODER, log_scale=True),
    Metric("eval/posterior_mean_var", "posterior mean: variance, held out", ENCODER, log_scale=True),
    Metric("train/posterior_std", "posterior: standard deviation", ENCODER),
    Metric("grad/total_norm", "gradient norm", SPEED, log_scale=True),
    Metric("perf/samples_per_s", "samples per second", SPEED, "up"),
    Metric("perf/step_ms", "milliseconds per step", SPEED, "down"),
    Metric("perf/data_wait_ms", "waiting for data, ms", SPEED, "down"),
    Metric("train/lr", "learning rate", SPEED),
)
BY_TAG = {metric.tag: metric for metric in METRICS}
TOPICS = tuple(dict.fromkeys(metric.topic for metric in METRICS))


def layout() -> dict[str, dict[str, list[str]]]:
    """Topic → chart → tags, as TensorBoard's custom scalars have it."""
    return {topic: {metric.title: [metric.tag] for metric in METRICS if metric.topic == topic} for topic in TOPICS}
