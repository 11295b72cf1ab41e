"""What an evaluation found, as values for metrics.json and as a table for the terminal."""

import dataclasses
from typing import Any

from trm_jax.data.arc import tasks
from trm_jax.data.arc.editions import Edition
from trm_jax.data.arc.voting import ATTEMPTS, Score, tells_more, wilson
from trm_jax.data.split import Split
from trm_jax.evaluation.evaluator import Evaluator
from trm_jax.evaluation.mistakes import mistakes
from trm_jax.evaluation.scoring import Tally
from trm_jax.evaluation.trained import Trained
from trm_jax.metric_table import METRICS

PASS = "pass@"
WITHOUT_SEARCH = ", without search"


def metrics_of(trained: Trained, split: Split, evaluator: Evaluator, tally: Tally,
               encoder: dict[str, float]) -> dict[str, Any]:
    """All numbers of a finished evaluation.

    `pass@K` is the mean over evaluated tasks of the share of a task's queries whose answer stands among the top K,
    with a 95% interval, and `solved` the number of those with all queries answered. (Of `augmentations` variants there
    are so many candidates at most: a larger K has the same numbers, and is not shown.) Of the tasks, `total` is the
    whole evaluation set, `left_out` do not fit the canvas, `without_row` fit and have no row in the model's embedding
    table (where it has one), `predicted` were put to the model, `evaluated` of these have a known answer, and `solved`
    of these were within the two attempts of the ARC Prize; `by_task` has the share of each one's queries that were.
    `mistakes` counts in which way queries are wrong, `protocol` is the word that tells what training had seen of them,
    `encoder` what `diagnose` found. Rows and votes do not depend on batch size, device count or time; what the model
    answers does, where another program rounds a near tie otherwise: `computed` says what it was, the dtype of
    activations, attention, devices, rows of a batch.

    After a latent search all answers are those from the contexts found, `search` says how these were searched, and
    `demo_loss` is the token loss of the demonstrations; `without_search` has the same numbers from the encoder's.
    """
    settings, score = trained.settings, evaluator.score(tally)
    side, protocol = settings.data.max_grid_size, trained.protocol(evaluator.plan.tasks)
    how, searched = settings.eval.search, {}
    if how is not None and tally.without_search is not None:
        before = evaluator.score(tally.without_search)
        searched = {"search": dataclasses.asdict(how), "without_search": {
            "solved": before.solved[ATTEMPTS], **_passed(before), **tally.without_search.means(),
            "by_task": before.by_task}}
    without_row = {} if trained.table is None else {"without_row": evaluator.without_row}
    return {
        "run": trained.workdir.resolve().name,
        "step": trained.step,
        "protocol": protocol.word,
        "data": settings.data.source,
        "evaluation_set": split.edition.to_json(),
        "canvas": side,
        "augmentations": settings.eval.augmentations,
        "halt": settings.eval.halt,
        "halt_max_steps": settings.arch.halt_max_steps,
        "tasks": {"solved": score.solved[ATTEMPTS], "evaluated": score.evaluated,
                  "predicted": len(evaluator.plan.tasks), "total": score.total,
                  "left_out": len(tasks.fitting(split.all_evaluation, side)[1]), **without_row},
        "predictions": tally.rows,
        "computed": trained.computed | {"batch_size": settings.eval.batch_size},
        **_passed(score),
        **tally.means(),
        **searched,
        "encoder": encoder,
        "by_task": score.by_task,
        "mistakes": mistakes(tally.votes, evaluator.plan.tasks),
        "notes": [*trained.notes, *split.notes, *protocol.notes],
    }


def _passed(score: Score) -> dict[str, Any]:
    """pass@K of every K, with its interval."""
    passed = {}
    for k, share in score.pass_at.items():
        low, high = wilson(share * score.evaluated, score.evaluated)
        passed[f"{PASS}{k}"] = {"share": share, "low": low, "high": high, "solved": score.solved[k]}
    return passed


def pass_rows(metrics: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """What each pass@K is called that says more than that of a smaller K, and its numbers; behind them those without
    the latent search, if there was one."""
    sides = (("", metrics), (WITHOUT_SEARCH, metrics.get("without_search", {})))
    return [(name + words, found) for words, side in sides for name, found in side.items() if name.startswith(PASS)
            and tells_more(int(name.removeprefix(PASS)), metrics["augmentations"])]


def table(metrics: dict[str, Any]) -> str:
    """The metrics as text."""
    counts = metrics["tasks"]
    total, rows = counts["total"], pass_rows(metrics)
    wide = max(10, *(len(name) + 1 for name, _ in rows))
    lines = [f"{metrics['run']}, step {metrics['step']}, {metrics['protocol']}, on {metrics['data']}: "
             f"{metrics['augmentations']} variants of each task, {metrics['predictions']:,} predictions",
             f"evaluation set: {Edition(**metrics['evaluation_set'])}", "",
             f"{'':<{wide}}{'score':>9}   {'95% interval':<17}{'solved':>7}   of all {total} tasks"]
    for name, found in rows:
        interval = f"{found['low']:.1%} … {found['high']:.1%}"
        over_all = found["share"] * counts["evaluated"] / total
        lines.append(f"{name:<{wide}}{found['share']:>9.1%}   {interval:<17}{found['solved']:>7}   {over_all:.1%}")
    titles = facts(metrics)
    width = max(map(len, titles)) + 2
    lines += ["", *(f"{title:<{width}}{value}" for title, value in titles.items())]
    lines += ["", f"solved {counts['solved']} / evaluated {counts['evaluated']} / total {total} tasks "
                  f"(in {ATTEMPTS} attempts; {metrics['protocol']})"]
    return "\n".join([*lines, *(f"note: {remark}" for remark in remarks(metrics))])


def facts(metrics: dict[str, Any]) -> dict[str, str]:
    """Title → value in words: the means over all predictions, and whether the encoder has collapsed."""
    values = metrics | metrics["encoder"]
    return {metric.title.removesuffix(", held out"): f"{values[metric.name]:.1%}" if metric.share else
            f"{values[metric.name]:.3g}" for metric in METRICS
            if metric.is_evaluation and metric.name in values and not metric.name.startswith(PASS)}


def _what_search_did(metrics: dict[str, Any]) -> str:
    how, before, counts = metrics["search"], metrics["without_search"], metrics["tasks"]
    return (f"latent search, {how['steps']} steps of {how['lr']:g}: solved {counts['solved']} of {counts['evaluated']} "
            f"tasks, {before['solved']} without it; token loss of the demonstrations {metrics['demo_loss']:.3g}, "
            f"{before['demo_loss']:.3g} without it")


def remarks(metrics: dict[str, Any]) -> list[str]:
    """What has to be known to read the score, a sentence each."""
    counts, side = metrics["tasks"], metrics["canvas"]
    fitting = counts["total"] - counts["left_out"]
    found = []
    if metrics.get("mistakes"):
        found.append("queries: " + ", ".join(f"{count} {kind}" for kind, count in metrics["mistakes"].items()))
    if "search" in metrics:
        found.append(_what_search_did(metrics))
    if counts["left_out"]:
        found.append(f"{counts['left_out']} of {counts['total']} tasks do not fit {side}x{side} and were left out")
    if counts.get("without_row"):
        found.append(f"{counts['without_row']} of {counts['total']} tasks have no row in the embedding table and were "
                     "left out: such a model answers only tasks whose demonstrations it was trained on")
    if counts["predicted"] + counts.get("without_row", 0) < fitting:
        found.append(f"only the first {counts['predicted']} of the {fitting} tasks that fit were evaluated "
                     "(data.max_eval_groups)")
    if counts["evaluated"] < counts["predicted"]:
        found.append(f"{counts['predicted'] - counts['evaluated']} tasks have no known answer: predicted, but not "
                     "scored")
    return [*found, *metrics["notes"]]
