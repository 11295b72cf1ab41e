"""Every number that a verdict rests on, with its reason."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Thresholds:
    """Shares (accuracies, scores) lie between 0 and 1; speed is compared as ratios of times."""

    accuracy_margin: float = 0.02  # shares no further apart are the same for every practical purpose
    speed_margin: float = 0.1  # a tenth fewer epochs to the same accuracy is faster
    # Of one difference. Three criteria at up to three looks (3, 4, 5 seeds) then err in at most 5 % of the experiments
    # in which both modes are the same: benchmarks/verdict_null.py.
    confidence: float = 0.995
    equal_confidence: float = 0.95  # of each side of an equality: two one-sided tests, the usual level
    # What seeds are taken to do where there are too few to show it: of accuracy the largest spread of that simulation,
    # of time twice the one there. The repository's own seeds are too few to know it better.
    seed_sd: float = 0.05  # of a share
    seed_log_time_sd: float = 0.2  # of the logarithm of a time to a level
    levels: tuple[float, ...] = (0.5, 0.8, 0.9)  # exact accuracies whose time to reach is reported
    final_fraction: float = 0.1  # "final" is the mean over the last tenth of a run
    min_final_points: int = 4  # fewer points in it: the run is too short to have a final value
    min_progress: float = 0.9  # of the configured epochs: below it a run is not finished
    length_tolerance: float = 0.1  # runs whose lengths differ by no more are equally long
    q_halt_accuracy: float = 0.8  # the plan's, for a Q-head that predicts correctness
    some_right: float = 0.1  # exact accuracy below which always saying "wrong" makes a good Q-head
    right_at_once: float = 0.9  # exact accuracy of the answers from which on halting at once is right
    stuck_share: float = 0.05  # ACT steps this near to the fewest or the most possible, of their distance, are stuck
    steps_movement: float = 0.5  # ACT steps between the lowest and the highest tenth of a run: less is not moving
    branch_seeds: int = 2  # of each mode: one seed alone names no branch of the plan
    plan_seeds: int = 3  # of each mode that the plan begins with


THRESHOLDS = Thresholds()
