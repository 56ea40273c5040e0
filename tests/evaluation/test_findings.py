"""Verdicts in words: from made-up numbers, and from generators that are broken on purpose."""

import re
from dataclasses import replace

import numpy as np
import pytest

from scldm.evaluation import METRICS, Finding, LabelFidelity, MetricInfo, Record, Row, Systems
from scldm.evaluation.findings import find
from scldm.evaluation.metrics.registry import TOPICS
from scldm.evaluation.records import Multiplicity, Value
from scldm.evaluation.verdict import is_worse

SYSTEMS = Systems.of(dict.fromkeys(("ceiling", "ours", "independent_nb", "memoriser"), ""), ("ours",))
TWO = Systems.of(dict.fromkeys(("ceiling", "ours", "theirs", "independent_nb", "memoriser"), ""), ("ours", "theirs"))


def row(
    name: str,
    group: str = "distances",
    direction: str = "higher",
    width: float = 0.01,
    space: str | None = None,
    condition: str | None = None,
    **values,
) -> Row:
    """Make a row in which real cells score the ceiling's value, give or take the width.

    The direction is that of the metric, if there is one of that name. The space of a distance is the primary one unless
    another is named.
    """
    if group == "distances" and condition is None:
        space = space or "pca"
    if name in METRICS:
        direction = METRICS[name].info.direction
    ceiling = values.get("ceiling")
    real: dict[str, float] = {}
    if ceiling is not None:
        real |= {} if direction == "lower" else {"real_low": ceiling - width}
        real |= {} if direction == "higher" else {"real_high": ceiling + width}
    found = {}
    for k, v in values.items():
        if v is not None:
            real_range = real.get("real_low"), real.get("real_high")
            p_value = None if not real else 1e-6 if is_worse(real_range, v) else 0.5
            halvings = tuple(v + shift * width / 4 for shift in (-1, 0, 1, 0))
            found[k] = Record(name, k, v, None, None, space, condition, **real, p_value=p_value, halvings=halvings)
    return Row(MetricInfo(name, name, group, direction, ""), space, condition, found)


def label(name: str, n_real: int, n_generated: int, real: float = 0.9, own: float | None = 0.9, depth: float = 1.0):
    agreement = {"real": Value(real, real - 0.02, real + 0.02), "ours": None}
    if own is not None:
        agreement["ours"] = Value(own, own - 0.02, own + 0.02)
    return LabelFidelity("cell_type", name, n_real, {"ours": n_generated}, n_real < 20, agreement, {"ours": depth})


def levels(found: tuple[Finding, ...], topic: str) -> list[str]:
    return [finding.level for finding in found if finding.topic == topic]


def test_every_limit_has_a_topic_and_a_sentence():
    limits = [(limit, metric) for metric in METRICS.values() for limit in metric.limits]
    assert {limit.topic for limit, _ in limits} == set(TOPICS)
    for limit, metric in limits:
        assert ("{condition}" in limit.sentence) == (metric.scope == "condition")
        assert limit.loss.warning < limit.loss.problem
        assert limit.sentence.format(value=0.5, ceiling=0.5, loss=0.5, condition="cell_type").endswith((".", "?"))


def test_limits_of_a_topic_come_in_their_order():
    rows = [
        row(name, METRICS[name].info.group, **dict.fromkeys(("ceiling", "ours"), 0.5 * (name != "exact_duplicates")))
        for name in METRICS
        if METRICS[name].limits and METRICS[name].scope != "condition"
    ]
    sentences = {finding.topic: finding.sentence for finding in find(rows, (), SYSTEMS)}
    for topic, names in (
        ("memorisation", ["exact copies", "near copies", "distance to training cells", "membership AUROC"]),
        ("distances", ["Fréchet distance", "1-NN accuracy", "classifier AUROC", "precision"]),
        ("correlations", ["agreement", "within labels"]),
    ):
        assert re.findall(r"([^:,]+) [0-9.]+ \(real", sentences[topic]) == [f" {name}" for name in names]
    off = {"frechet_distance": 9.0, "wasserstein2": 9.0, "precision": 0.1}
    rows = [row(name, ceiling=0.5, ours=value) for name, value in off.items()]
    found = [finding.sentence.split()[1] for finding in find(rows, (), SYSTEMS) if finding.topic == "distances"]
    assert found == ["Fréchet", "Wasserstein", "10%"]


@pytest.mark.parametrize(
    ("metric", "topic", "ceiling", "fine", "warning", "problem"),
    [
        ("exact_duplicates", "memorisation", 0.0, 0.0, 0.008, 0.05),
        ("near_duplicates", "memorisation", 0.01, 0.02, 0.08, 0.5),
        ("nearest_training_ratio", "memorisation", 1.0, 0.97, 0.90, 0.3),
        ("membership_auroc", "memorisation", 0.49, 0.53, 0.57, 0.7),
        ("membership_auroc", "memorisation", 0.58, 0.6, 0.66, 0.8),
        ("nearest_neighbour_accuracy", "memorisation", 0.5, 0.47, 0.35, 0.1),
        ("nearest_neighbour_accuracy", "distances", 0.49, 0.53, 0.6, 0.9),
        ("nearest_training_ratio", "distances", 1.0, 1.05, 1.3, 1.8),
        ("recall", "modes", 0.92, 0.85, 0.7, 0.3),
        ("coverage", "modes", 0.97, 0.9, 0.8, 0.5),
        ("frechet_distance", "distances", 2.8, 3.5, 5.0, 20.0),
        ("precision", "distances", 0.92, 0.85, 0.75, 0.4),
        ("label_agreement", "labels", 0.8, 0.82, 0.87, 0.95),
        ("label_agreement", "labels", 0.9, 0.88, 0.85, 0.3),
        ("gene_gene_correlation", "correlations", 0.95, 0.94, 0.88, 0.5),
        ("gene_gene_correlation_within", "correlations", 0.75, 0.7, 0.6, 0.06),
        ("marker_fold_change_correlation", "genes", 0.8, 0.75, 0.6, 0.1),
        ("zero_fraction_mae", "zeros", 0.05, 0.06, 0.1, 0.3),
        ("depth_ratio", "depth", 1.0, 1.05, 1.3, 2.0),
        ("depth_ratio", "depth", 1.0, 0.95, 0.75, 0.4),
    ],
)
def test_limits_in_both_directions(metric, topic, ceiling, fine, warning, problem):
    condition = "cell_type" if METRICS[metric].scope == "condition" else None
    for value, expected in ((fine, "note"), (warning, "warning"), (problem, "problem")):
        rows = [row(metric, width=0.002, condition=condition, ceiling=ceiling, ours=value, memoriser=None)]
        found = find(rows, (), SYSTEMS)
        # what is fine is worse than real cells by less than the limit: no finding, and no praise where it is in doubt
        assert [f.level for f in found if f.topic == topic and f.level in ("warning", "problem")] == (
            [] if expected == "note" else [expected]
        )


def test_a_difference_that_chance_explains_is_no_finding():
    values = {"ceiling": 0.92, "ours": 0.75}
    assert levels(find([row("recall", width=0.05, **values)], (), SYSTEMS), "modes") == ["warning"]
    assert levels(find([row("recall", width=0.18, **values)], (), SYSTEMS), "modes") == ["good"]


def test_what_is_worse_by_little_or_maybe_by_chance_is_a_note_and_takes_the_praise_away():
    # worse than real cells, but by less than the limit
    (small,) = find([row("recall", width=0.01, ceiling=0.92, ours=0.89)], (), SYSTEMS)
    assert (small.level, small.topic) == ("note", "modes")
    assert "Recall 0.89 (real cells: 0.91 or more)" in small.sentence.replace("recall", "Recall")
    # beyond the limit, but among so many metrics it may be chance
    off = row("recall", width=0.01, ceiling=0.92, ours=0.75)
    record = replace(off.values["ours"], p_value=0.002)
    off = replace(off, values={**off.values, "ours": record})
    for n_judged, expected in ((25, "warning"), (26, "note")):
        found = find([off], (), SYSTEMS, [Multiplicity("ours", n_judged, 1, 3)])
        (finding,) = (f for f in found if f.topic == "modes")
        assert finding.level == expected


def test_it_is_said_how_many_metrics_are_worse_and_how_many_are_of_real_cells():
    rows = [row("recall", ceiling=0.9, ours=0.9)]
    (as_real,) = (f for f in find(rows, (), SYSTEMS, [Multiplicity("ours", 40, 5, 5)]) if f.topic == "cells")
    assert as_real.level == "good"
    assert "5 of 40 metrics call the cells worse than real ones; of real cells, up to 5 do" in as_real.sentence
    (worse,) = (f for f in find(rows, (), SYSTEMS, [Multiplicity("ours", 40, 6, 5)]) if f.topic == "cells")
    assert worse.level == "note"


def test_where_real_cells_hardly_agree_nothing_is_judged():
    rows = [row("gene_gene_correlation_within", ceiling=0.23, ours=0.05)]
    assert levels(find(rows, (), SYSTEMS), "correlations") == []


def test_numbers_stand_in_the_sentences_and_problems_come_first():
    rows = [
        row("recall", ceiling=0.92, ours=0.4),
        row("exact_duplicates", ceiling=0.0, ours=0.0),
        row("depth_ratio", ceiling=1.0, ours=0.8),
    ]
    found = find(rows, (), SYSTEMS)
    assert [finding.level for finding in found] == ["problem", "warning", "good"]
    assert "only 40% of them" in found[0].sentence
    assert "92%" in found[0].sentence
    assert "0.80 times" in found[1].sentence
    assert found[2].sentence == "No sign of memorised training cells: exact copies 0 (real: 0)."


def test_missing_values_are_passed_over():
    rows = [row("recall", ceiling=0.9, ours=None), row("precision", ours=0.1), row("coverage", ceiling=None, ours=0.1)]
    assert find(rows, (), SYSTEMS) == ()


def test_other_spaces_say_nothing_twice():
    rows = [row("recall", ceiling=0.9, ours=0.9), row("recall", space="hvg", ceiling=0.9, ours=0.1)]
    assert levels(find(rows, (), SYSTEMS), "modes") == ["good"]


def test_missing_labels():
    labels = (label("B", 80, 80), label("T", 50, 0, own=None), label("NK", 5, 0, own=None), label("new", 0, 9))
    (missing,) = (f for f in find((), labels, SYSTEMS) if f.topic == "modes")
    assert missing.level == "problem"
    assert missing.sentence == "No cell was generated for 2 of the 3 labels of cell_type: 'T' (50 held-out cells)."
    rare = (label("B", 80, 80), label("NK", 5, 0, own=None))
    assert levels(find((), rare, SYSTEMS), "modes") == ["warning"]
    unlabelled = (label("B", 80, 0, own=None), label("T", 50, 0, own=None))
    assert find((), unlabelled, SYSTEMS) == ()


def test_labels_that_are_off_are_named():
    labels = (label("B", 200, 200, own=0.75), label("T", 80, 80, own=0.88), label("NK", 80, 80, own=0.5, depth=2.5))
    found = find((), labels, SYSTEMS)
    assert [(f.level, f.topic) for f in found] == [("problem", "labels"), ("warning", "depth")]
    assert "'NK' 50% (real cells: 90%), 'B' 75% (real cells: 90%)." in found[0].sentence
    assert "'T'" not in found[0].sentence
    assert "'NK' 2.50" in found[1].sentence
    assert find((), (label("NK", 80, 10, own=0.1), label("rare", 10, 80, own=0.1)), SYSTEMS) == ()


def test_behind_a_baseline():
    rows = [
        row("wasserstein2", direction="lower", ceiling=7.0, ours=9.0, independent_nb=8.0),
        row("recall", ceiling=0.9, ours=0.9, independent_nb=0.91),
        row("depth_ratio", direction="closest to ceiling", ceiling=1.0, ours=1.01, independent_nb=1.0),
        row("exact_duplicates", group="memorisation", direction="lower", ceiling=0.0, ours=0.5, independent_nb=0.0),
    ]
    (behind,) = (f for f in find(rows, (), SYSTEMS) if f.topic == "baselines")
    assert behind.level == "warning"
    assert behind.sentence == (
        "Farther from real cells than the baseline independent NB on 1 of 3 metrics: wasserstein2."
    )
    ahead = [row("wasserstein2", direction="lower", ceiling=7.0, ours=7.5, independent_nb=8.0)]
    assert levels(find(ahead, (), SYSTEMS), "baselines") == ["good"]


def test_the_space_of_the_model_does_not_count_against_baselines():
    rows = [
        row("recall", ceiling=0.9, ours=0.9, independent_nb=0.8),
        row("recall", space="latent", ceiling=0.9, ours=0.2, independent_nb=0.8),
        row("label_agreement", group="labels", condition="latent", ceiling=0.9, ours=0.9, independent_nb=0.9),
    ]
    (praise,) = (f for f in find(rows, (), SYSTEMS) if f.topic == "baselines")
    assert praise.level == "good"
    assert praise.sentence.startswith("On none of 2 metrics")
    assert "(independent NB)" in praise.sentence


def test_real_cells_that_were_trained_on():
    rows = [
        row("exact_duplicates", "memorisation", "lower", width=0.0, ceiling=0.5, ours=0.0, theirs=0.5),
        row("recall", ceiling=0.9, ours=0.9, theirs=0.9),
    ]
    found = find(rows, (), TWO)
    for system in ("ours", "theirs"):
        (memorisation,) = (f for f in found if f.system == system and f.topic == "memorisation")
        assert memorisation.level == "problem"
        assert memorisation.sentence.startswith("50.0% of the real cells are exact copies of training cells")
    few = [row("exact_duplicates", "memorisation", "lower", width=0.0, ceiling=0.04, ours=0.0)]
    assert levels(find(few, (), SYSTEMS), "memorisation") == ["good"]


def test_few_cells_earn_no_praise():
    rows = [row("recall", ceiling=0.9, ours=0.9), row("depth_ratio", ceiling=1.0, ours=2.0)]
    found = find(rows, (), SYSTEMS, n_cells=99)
    assert [(f.level, f.topic) for f in found] == [("problem", "depth"), ("warning", "cells")]
    assert "Only 99 cells" in found[1].sentence
    for enough in (100, None):
        found = find(rows, (), SYSTEMS, n_cells=enough)
        assert [(f.level, f.topic) for f in found] == [("problem", "depth"), ("good", "modes")]


def test_every_generator_is_judged():
    rows = [row("recall", ceiling=0.9, ours=0.9, theirs=0.2)]
    found = find(rows, (), TWO)
    assert [(f.system, f.level) for f in found] == [("ours", "good"), ("theirs", "problem")]


@pytest.fixture(scope="module")
def verdicts(make_cells) -> dict[str, tuple[Finding, ...]]:
    """Judge good, memorising, mode-dropping, over-separated and shuffled generators in one run."""
    from scldm.evaluation import evaluate

    everything = make_cells(1400, seed=11)
    train, real, good = (everything[start : start + n].copy() for start, n in ((0, 500), (500, 400), (900, 500)))
    # types that overlap in real cells: the label of a fifth of the cells is that of the other type
    for cells, seed in ((train, 0), (real, 1), (good, 2)):
        wrong = np.random.default_rng(seed).random(cells.n_obs) < 0.2
        types = cells.obs["cell_type"].astype(str).to_numpy()
        cells.obs["true_type"] = types
        cells.obs["cell_type"] = np.where(wrong, np.where(types == "B", "T", "B"), types)
    memorising = train[:400].copy()
    dropping = good[good.obs["cell_type"] == "B"].copy()
    separated, shuffled = good.copy(), good.copy()
    separated.obs["cell_type"] = separated.obs["true_type"]
    shuffled.obs["cell_type"] = np.random.default_rng(3).permutation(good.obs["cell_type"])
    generated = {
        "good": good,
        "memorising": memorising,
        "dropping": dropping,
        "separated": separated,
        "shuffled": shuffled,
    }
    report = evaluate(real, generated, train=train, conditions=["cell_type"], n_halvings=1, n_permutations=39)
    return {name: tuple(f for f in report.findings if f.system == name) for name in generated}


def test_a_good_generator_is_praised_and_not_criticised(verdicts):
    assert {finding.level for finding in verdicts["good"]} <= {"good", "note"}
    assert {"memorisation", "modes", "distances", "labels", "depth"} <= {f.topic for f in verdicts["good"]}


def test_a_memorising_generator_is_caught(verdicts):
    found = [f for f in verdicts["memorising"] if f.topic == "memorisation"]
    sentences = [f.sentence for f in found if f.level == "problem"]
    assert any("100.0% of the cells are exact copies" in sentence for sentence in sentences)
    assert any("AUROC" in sentence for sentence in sentences)
    assert any("0.00 times the distance" in f.sentence for f in found if f.level in ("problem", "warning"))


def test_a_mode_dropping_generator_is_caught(verdicts):
    sentences = [f.sentence for f in verdicts["dropping"] if (f.level, f.topic) == ("problem", "modes")]
    assert any("No cell was generated for 1 of the 2 labels" in sentence for sentence in sentences)


def test_over_separated_and_shuffled_labels_are_caught(verdicts):
    (separated,) = (f for f in verdicts["separated"] if f.sentence.startswith("The labels of cell_type are told apart"))
    (shuffled,) = (f for f in verdicts["shuffled"] if f.sentence.startswith("Cells do not look like their label"))
    assert separated.level == shuffled.level == "problem"
    assert levels(verdicts["separated"], "memorisation") == ["good"]
