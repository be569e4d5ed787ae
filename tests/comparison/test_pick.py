"""Which weight: what differs between runs, means over seeds, the noise, and the largest weight within it."""

import json
import math

import pytest
import yaml

from stec.comparison.pick import KNN, NOISE, choose, differing, read
from stec.errors import DataError, UsageError

BINNED = {"name": "binned", "weight": 1.0, "num_bins": 6}


def make(root, knn, weight=1.0, seed=0, num_test=None, name=None, bits=(0.2, 0.4), share=(0.1, 0.3), **changed):
    folder = root / (name or f"{weight:g}-{seed}-{len(list(root.iterdir()))}")
    folder.mkdir()
    config = {
        "seed": seed,
        "run_dir": str(folder),
        "hardware": {"num_workers": seed},
        "identity": {"simclr": {"weight": 2.0}},
        "manipulation": {"binned": {**BINNED, "weight": weight}},
        "optimizer": {"lr": 0.1, "betas": [0.9, 0.99]},
        **changed,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    row = {KNN: knn, "eval/linear/top1": knn + 0.1, "health/std": 0.5}
    row |= {f"eval/action_bits/{i}": value for i, value in enumerate(bits)}
    (folder / "table.json").write_text(json.dumps({"rows": {"trained": row}, "num_test": num_test}))
    lines = [{"step": step, "train/grad_share_manip": value} for step, value in enumerate(share)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return read(folder)


def test_the_largest_weight_within_the_noise_is_taken(tmp_path):
    runs = [make(tmp_path, knn, weight) for weight, knn in ((3, 0.596), (0.3, 0.6), (10, 0.55), (1, 0.58))]
    choice = choose(runs)
    assert choice.key == "manipulation.binned.weight"
    assert [line.weight for line in choice.lines] == [0.3, 1, 3, 10]
    assert (choice.taken.weight, choice.best.weight, choice.noise) == (3, 0.3, NOISE)
    assert choose(runs, noise=0.001).taken.weight == 0.3
    assert choose(runs, noise=0.06).taken.weight == 10
    assert choose(runs, "eval/linear/top1").taken.score == pytest.approx(0.696)


def test_the_noise_is_the_binomial_error_on_the_samples_tested_on(tmp_path):
    choice = choose([make(tmp_path, knn, weight, num_test=400) for weight, knn in ((1, 0.5), (3, 0.476), (9, 0.474))])
    assert choice.noise == pytest.approx(math.sqrt(0.5 * 0.5 / 400))  # 0.025
    assert choice.taken.weight == 3
    assert "400 test samples" in choice.noise_words


def test_seeds_are_averaged_and_their_spread_counts_if_it_is_larger(tmp_path):
    scores = {1: (0.50, 0.56), 3: (0.48, 0.54)}
    runs = [make(tmp_path, s, weight, seed) for weight, both in scores.items() for seed, s in enumerate(both)]
    choice = choose(runs)
    assert [line.seeds for line in choice.lines] == [(0, 1), (0, 1)]
    assert [line.score for line in choice.lines] == pytest.approx([0.53, 0.51])
    # Two numbers 6 points apart: deviation 6 / sqrt(2), over sqrt(2) seeds.
    assert choice.noise == pytest.approx(0.03)
    assert choice.noise_words == "the standard error over seeds"
    assert choice.taken.weight == 3
    first = choice.lines[0]
    assert (first.bits, first.grad_share) == (pytest.approx(0.3), pytest.approx(0.3))


def test_a_run_without_the_term_is_one_of_weight_nought(tmp_path):
    choice = choose([make(tmp_path, 0.5, manipulation={}, bits=(), share=()), make(tmp_path, 0.4, 3)])
    assert choice.key == "manipulation.binned.weight"
    assert [line.weight for line in choice.lines] == [0, 3]
    assert math.isnan(choice.lines[0].bits)
    assert math.isnan(choice.lines[0].grad_share)


def test_what_does_not_bear_on_the_trained_row_may_differ(tmp_path):
    beside = [{"raw_input": bool(i), "baselines": {"other": f"runs/seed-{i}"}} for i in range(2)]
    ours = [{"lr": lr, "betas": [0.9, 0.99]} for lr in (1, 1.0)]
    two = [make(tmp_path, 0.5, w, evaluation=beside[w], optimizer=ours[w]) for w in range(2)]
    assert differing(two) == "manipulation.binned.weight"


def test_a_weight_of_the_identity_may_be_what_differs(tmp_path):
    two = [make(tmp_path, 0.5, identity={"simclr": {"weight": weight}}) for weight in (1.0, 2.0)]
    assert differing(two) == "identity.simclr.weight"


@pytest.mark.parametrize(
    ("changed", "keys"),
    [
        ({"optimizer": {"lr": 0.2, "betas": [0.9, 0.99]}}, "manipulation.binned.weight, optimizer.lr"),
        ({"optimizer": {"lr": 0.1, "betas": [0.9, 0.9]}}, "manipulation.binned.weight, optimizer.betas"),
        ({"identity": {"simclr": {"weight": 1.0}}}, "identity.simclr.weight, manipulation.binned.weight"),
        ({"manipulation": {"binned": {**BINNED, "weight": 3.0, "num_bins": 9}}}, "manipulation.binned.num_bins"),
    ],
)
def test_runs_that_differ_in_more_are_refused_by_name(tmp_path, changed, keys):
    with pytest.raises(UsageError, match=f"differ in {keys}"):
        choose([make(tmp_path, 0.5, 1), make(tmp_path, 0.5, 3, **changed)])


def test_one_run_and_runs_that_do_not_differ_are_refused(tmp_path):
    one, other = make(tmp_path, 0.5), make(tmp_path, 0.5, seed=1)
    with pytest.raises(UsageError, match=r"one run shows no choice.*stec-train -m recipe=RECIPE"):
        choose([one])
    with pytest.raises(UsageError, match="differ in no key but their seed"):
        choose([one, other])


def test_a_metric_that_is_no_share_or_not_there_is_refused(tmp_path):
    runs = [make(tmp_path, 0.5, 1), make(tmp_path, 0.5, 3)]
    for metric in ("health/std", "eval/phone/acc"):
        with pytest.raises(UsageError, match=f"no {metric} that could decide: .* among eval/knn/top1, eval/linear"):
            choose(runs, metric)


def test_what_is_not_finished_or_damaged_is_one_sentence(tmp_path):
    make(tmp_path, 0.5, name="run")
    run = tmp_path / "run"
    for text in ("{", '{"rows": {}}', '{"rows": {"trained": 3}}', "[]"):
        (run / "table.json").write_text(text)
        with pytest.raises(DataError, match=r"run: config\.yaml or table\.json is damaged"):
            read(run)
    (run / "table.json").unlink()
    with pytest.raises(UsageError, match=r"run is no finished run: there is no table\.json in it"):
        read(run)


def test_a_run_that_is_there_twice_is_refused(tmp_path):
    one, other = make(tmp_path, 0.5, 1), make(tmp_path, 0.4, 3)
    with pytest.raises(UsageError, match="is named twice"):
        choose([one, other, one._replace(folder=tmp_path / "." / one.folder.name)])
    again = make(tmp_path, 0.6, 1)
    with pytest.raises(UsageError, match=r"are both runs of seed 0 at manipulation\.binned\.weight=1: one draw"):
        choose([one, other, again])


def test_runs_on_different_samples_are_refused(tmp_path):
    one, other = make(tmp_path, 0.5, 1), make(tmp_path, 0.4, 3)
    choose([one._replace(data="a"), other])  # not known of an older one
    with pytest.raises(UsageError, match="learnt from different samples"):
        choose([one._replace(data="a"), other._replace(data="b")])


def test_of_many_keys_eight_are_named(tmp_path):
    many = {"optimizer": {f"key{i}": i for i in range(12)}}
    with pytest.raises(UsageError) as refused:
        choose([make(tmp_path, 0.5, 1), make(tmp_path, 0.5, 3, **many)])
    assert " and 7 more: runs are compared" in str(refused.value)


def test_a_weight_that_is_the_default_is_no_weight_of_nought(tmp_path):
    choice = choose([make(tmp_path, 0.5, 1), make(tmp_path, 0.5, 3)])
    assert [line.weight for line in choice.lines] == [1, 3]
