"""The answer about both modes, by how many seeds and how much of each run there is."""


from tests.comparison.fabricate import diverging, run, scalars, seeds, until, write
from tests.comparison.judging import commands, finding, groups_of, verdict_of
from trm_jax.comparison.statistics import Standing
from trm_jax.comparison.verdict import ONLINE, ORIGINAL, UNDECIDED

WORSE, OPEN = Standing.WORSE, Standing.UNDECIDED


# ── Seeds ──


def test_seeds_that_pair_are_compared_in_pairs(tmp_path):
    """Seeds ten points apart, online five points above in each of them."""
    finals = (0.65, 0.75, 0.85)
    original = [run(tmp_path, "o1", seed, final=final) for seed, final in enumerate(finals)]
    paired = [run(tmp_path, "l1", seed, final=final + 0.05) for seed, final in enumerate(finals)]
    others = [run(tmp_path, "l1", seed, final=final + 0.05) for seed, final in enumerate(finals, start=10)]
    accuracy = verdict_of(*original, *paired).findings[0]
    assert accuracy.standing == WORSE and accuracy.difference.pairs == 3
    assert verdict_of(*original, *others).findings[0].standing == OPEN


def test_one_more_agreeing_seed_never_weakens_a_finding(tmp_path):
    strength = {OPEN: 0, WORSE: 1}
    found, before, noises = [], 0, []
    for seed, (original, online) in enumerate([(0.70, 0.92), (0.72, 0.93), (0.69, 0.92), (0.71, 0.925), (0.7, 0.92)]):
        found += [run(tmp_path, "o1", seed, final=original), run(tmp_path, "l1", seed, final=online)]
        accuracy = verdict_of(*found).findings[0]
        assert strength[accuracy.standing] >= before
        before = strength[accuracy.standing]
        noises.append(accuracy.difference.noise)
    assert noises == sorted(noises, reverse=True) and before


def test_one_seed_names_no_branch_and_says_so(tmp_path):
    verdict = verdict_of(run(tmp_path, "o1", final=0.5), run(tmp_path, "l1", final=0.95))
    assert verdict.answer == ONLINE and verdict.headline.endswith("(provisional: one seed each)")
    assert commands(verdict) == ["o1_seed1", "o1_seed2", "l1_seed1", "l1_seed2"]
    verdict = verdict_of(run(tmp_path, "o1", final=0.90), run(tmp_path, "l1", final=0.95))
    assert (verdict.answer, verdict.lean) == (UNDECIDED, ONLINE) and "leaning to l1" in verdict.headline


def test_other_runs_change_nothing_about_two(tmp_path):
    pair = seeds(tmp_path, "o1", final=0.80) + seeds(tmp_path, "l1", final=0.95)
    rest = [run(tmp_path, "o2", final=0.99, noise=0.05), run(tmp_path, "r1", final=0.3),
            run(tmp_path / "other", "o1", final=0.2, overrides={"optim.lr": 1.0}),
            run(tmp_path, "l3", found=until(500, scalars("l3")))]
    alone, among = verdict_of(*pair), verdict_of(*rest, *pair)
    assert (alone.answer, [(f.standing, f.difference) for f in alone.findings]) == \
        (among.answer, [(f.standing, f.difference) for f in among.findings])
    assert len(among.others) == 2 * len(rest)


def test_a_seed_that_logs_at_another_interval_is_a_seed_all_the_same(tmp_path):
    found = [run(tmp_path, "o1", 0), run(tmp_path, "o1", 1, settings={"train__log_every_steps": 20})]
    (group,) = groups_of(found)
    assert group.seeds == [0, 1] and group.label == "o1"
    assert len(groups_of([*found, run(tmp_path / "other", "o1", 2, settings={"optim__lr": 1.0})])) == 2


# ── Runs that are not whole ──


def test_the_mode_that_diverges_in_every_seed_loses(tmp_path):
    original = [run(tmp_path, "o1", seed, found=diverging(scalars("o1", seed=seed))) for seed in range(3)]
    verdict = verdict_of(*original, *seeds(tmp_path, "l1"))
    assert verdict.answer == ONLINE and "o1 diverged in 3 of 3" in verdict.headline
    assert commands(verdict)[0] == "l2"
    both = verdict_of(*original, *(run(tmp_path, "l1", seed, found=diverging(scalars("l1"))) for seed in range(3)))
    assert both.answer == UNDECIDED and not both.lean and not both.next_step.runs


def test_one_seed_of_three_that_diverged_is_a_seed_that_solves_nothing(tmp_path):
    original = [*seeds(tmp_path, "o1", 2), run(tmp_path, "o1", 2, found=diverging(scalars("o1", seed=2)))]
    verdict = verdict_of(*original, *seeds(tmp_path, "l1"))
    assert verdict.findings[0].numbers["o1"][2] == 0.0
    assert verdict.answer == UNDECIDED and "o1 diverged in 1 of 3" in verdict.headline and verdict.lean == ONLINE


def test_runs_that_are_still_going_get_so_far(tmp_path):
    found = [run(tmp_path, preset, seed, found=until(1250, scalars(preset, final, seed=seed)))
             for preset, final in (("o1", 0.6), ("l1", 0.9)) for seed in range(2)]
    verdict = verdict_of(*found)
    assert (verdict.answer, verdict.lean, verdict.so_far) == (UNDECIDED, ONLINE, True)
    assert verdict.headline.startswith("Undecided so far; leaning to l1 (exact accuracy")
    assert "50 %" in verdict.next_step.what and commands(verdict) == [path.name for path in found]


def test_runs_of_other_lengths_are_compared_where_the_shortest_ends(tmp_path):
    short = {"train__epochs": 10_000}
    found = [run(tmp_path, "o1", seed, settings=short, batches=1250) for seed in range(3)] + seeds(tmp_path, "l1")
    verdict = verdict_of(*found)
    assert "at 10,000 epochs, where l1 went on" in verdict.findings[0].evidence
    assert any("train.epochs (10000 / 20000)" in caveat for caveat in verdict.caveats)
    annealed = {"optim__lr_min_ratio": 0.1}
    found = [run(tmp_path / "a", "o1", settings=short | annealed, batches=1250),
             run(tmp_path / "a", "l1", settings=annealed)]
    assert "before its learning rate has come down" in verdict_of(*found).findings[0].reason


def test_runs_of_equal_updates_are_compared_at_their_ends(tmp_path):
    """As the tiny presets are: online ones make four times the updates in a quarter of the epochs."""
    found = [run(tmp_path, "o1", size="tiny"), run(tmp_path, "l1", size="tiny", batches=625,
                                                   settings={"train__epochs": 5000})]
    assert "at 2,500 updates" in verdict_of(*found).findings[0].evidence


def test_a_run_of_few_points_is_too_short(tmp_path):
    found = [run(tmp_path, preset, found=until(200, scalars(preset)), settings={"train__epochs": 1600})
             for preset in ("o1", "l1")]
    assert "too short" in verdict_of(*found).findings[0].reason


def test_one_mode_only(tmp_path):
    verdict = verdict_of(run(tmp_path, "o1"), run(tmp_path, "o2", final=0.5))
    assert verdict.answer == UNDECIDED and "only runs of the original mode" in verdict.headline
    assert finding(verdict, "Q-head").standing == OPEN or finding(verdict, "Q-head").difference is not None
    assert verdict.others[0].standing == WORSE and commands(verdict) == ["l1"]


def test_a_run_that_stands_for_a_baseline(tmp_path):
    verdict = verdict_of(*seeds(tmp_path, "r1", final=0.95), *seeds(tmp_path, "l1", final=0.7))
    assert verdict.answer == ORIGINAL and verdict.headline.endswith("(provisional: r1 stands for O1)")


def test_runs_without_any_record_go_by_their_names(tmp_path):
    """PyTorch runs: modes by name and tags, no epochs, and no guess at them."""
    found = [write(tmp_path / "O1_original_baseline", scalars("o1")), write(tmp_path / "torch", scalars("l1", 0.5))]
    groups = groups_of(found)
    assert [(group.mode, group.identity.preset) for group in groups] == [(ORIGINAL, "o1"), (ONLINE, "")]
    assert set(groups[0].runs[0].axes) == {"updates", "hours"} and set(groups[1].runs[0].axes) == {"hours"}
    verdict = verdict_of(*found)
    assert verdict.answer == UNDECIDED and "no axis" in verdict.findings[0].reason
