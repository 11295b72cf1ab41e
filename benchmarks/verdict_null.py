"""How often the plan picks a branch when there is nothing to pick: experiments in which both modes are the same.

    python -m benchmarks.verdict_null [--experiments=400] [--max-seeds=5] [--effect=0.1]

Every run's exact accuracy rises to a final value that differs between seeds by a normal distribution of the standard
deviation of the line, in a time that differs by a tenth; its held-out score is a binomial of 32 tasks. `suite plan` is
walked with the real judge: three seeds of each mode, then one more of each while nothing is decided, up to --max-seeds.
A branch is picked where the verdict names one. With --effect, online learning ends so much higher: how often that is
found.
"""

import argparse
from collections import Counter
from pathlib import Path

import numpy as np

from trm_jax.comparison.events import HOURS, Series
from trm_jax.comparison.groups import Group
from trm_jax.comparison.plan import BASELINES
from trm_jax.comparison.runs import Identity, Run
from trm_jax.comparison.thresholds import THRESHOLDS
from trm_jax.comparison.verdict import judge
from trm_jax.metric_table import ANSWERED

SEED_SDS = (0.02, 0.03, 0.05)
FINAL, TIME_SD, NOISE, TASKS, SOLVED = 0.85, 0.1, 0.02, 32, 0.1
STEPS = np.arange(10, 2501, 10.0)


def make_run(mode: str, seed: int, seed_sd: float, effect: float, rng: np.random.Generator) -> Run:
    """One run of an experiment: 2,500 batches, 20,000 epochs."""
    final = np.clip(FINAL + (effect if mode == "online" else 0.0) + seed_sd * rng.normal(), 0, 1)
    tau = 400 * np.exp(TIME_SD * rng.normal())
    exact = final * (1 - np.exp(-STEPS / tau)) + NOISE * rng.normal(size=len(STEPS))
    passed = rng.binomial(TASKS, SOLVED) / TASKS
    series = {ANSWERED: Series(STEPS, exact), HOURS: Series(STEPS, STEPS / 1000),
              "eval/pass@2": Series(STEPS[-1:], np.array([passed]))}
    config = {"train": {"seed": seed, "epochs": 20_000}, "mode": {"name": mode, "num_act_steps": 4},
              "data": {"global_batch_size": 256, "max_train_groups": 32, "max_eval_groups": TASKS}}
    return Run(Path(f"runs/{seed}"), f"{BASELINES[mode]}_seed{seed}", Identity(BASELINES[mode], mode=mode), config,
               series)


def walk(seed_sd: float, effect: float, max_seeds: int, rng: np.random.Generator) -> tuple[str, str, int]:
    """Answer and lean of one experiment as the plan would end it, and seeds of each mode."""
    runs: dict[str, list[Run]] = {mode: [] for mode in BASELINES}
    for count in range(1, max_seeds + 1):
        for mode, found in runs.items():
            found.append(make_run(mode, count - 1, seed_sd, effect, rng))
        if count < THRESHOLDS.plan_seeds:
            continue
        verdict = judge([Group(BASELINES[mode], found) for mode, found in runs.items()])
        if verdict.answer in BASELINES:
            break
    return verdict.answer, verdict.lean, count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--experiments", type=int, default=400)
    parser.add_argument("--max-seeds", type=int, default=5)
    parser.add_argument("--effect", type=float, default=0.0)
    options = parser.parse_args()
    print(f"{options.experiments} experiments a line\n"
          f"{'seed sd':>8}{'picks a branch':>16}{'tie':>8}{'follows the lean':>18}{'seeds':>8}")
    for seed_sd in SEED_SDS:
        rng = np.random.default_rng(0)
        found = [walk(seed_sd, options.effect, options.max_seeds, rng) for _ in range(options.experiments)]
        answers = Counter(answer for answer, *_ in found)
        picked = [answers[mode] / len(found) for mode in BASELINES]
        open_ones = sum(answer not in BASELINES and bool(lean) for answer, lean, _ in found) / len(found)
        print(f"{seed_sd:>8}{sum(picked):>15.1%} {answers['tie'] / len(found):>7.1%}{open_ones:>17.1%} "
              f"{np.mean([count for *_, count in found]):>8.1f}   online {picked[1]:.1%}", flush=True)


if __name__ == "__main__":
    main()
