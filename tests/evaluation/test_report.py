import json
from dataclasses import asdict, replace
from pathlib import Path

import anndata as ad
import numpy as np
import pytest

from scldm.errors import UserError
from scldm.evaluation import (
    EvaluationReport,
    Finding,
    GeneOverlap,
    MetricInfo,
    Record,
    Systems,
    draw_overview,
    evaluate,
    write_page,
)
from scldm.evaluation.table import metric_table, number

FIXTURES = Path(__file__).parents[1] / "fixtures"
FORMAT_2, FORMAT_3 = FIXTURES / "metrics_format_2.json", FIXTURES / "metrics_format_3.json"


def test_the_json_file_round_trips_and_names_everything(report, tmp_path):
    path = tmp_path / "metrics.json"
    report.save(path)
    content = json.loads(path.read_text())
    assert content["format_version"] == 4
    assert content["profile"] == "standard"
    assert content["systems"][1] == {"name": "generated", "kind": "generator", "meaning": "the generated cells"}
    first = content["metrics"][0]
    assert (first["name"], first["group"], first["direction"]) == ("wasserstein2", "distances", "lower")
    assert first["display_name"] == "Wasserstein-2"
    assert first["description"]
    record = content["records"][1]
    assert (record["metric"], record["system"]) == ("wasserstein2", "generated")
    assert (record["space"], record["condition"]) == ("pca", None)
    assert record["value"] == report.value("wasserstein2")
    assert (record["real_low"], record["real_high"]) == report.record("wasserstein2").real_range
    assert record["real_low"] is None
    assert 0 < record["p_value"] <= 1
    assert len(record["halvings"]) == 3
    assert np.mean(record["halvings"]) == pytest.approx(record["value"])
    assert content["multiplicity"][0]["system"] == "generated"
    assert {row["condition"] for row in content["labels"]} >= {"cell_type"}
    assert EvaluationReport.load(path) == report
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.json"]


def test_other_formats_are_refused_in_words(report):
    content = report.to_dict()
    with pytest.raises(UserError, match="format 5; this version of scldm reads 2 to 4"):
        EvaluationReport.from_dict(content | {"format_version": 5})
    with pytest.raises(UserError, match=r"format 1.*run evaluate again"):
        EvaluationReport.from_dict(content | {"format_version": 1})
    with pytest.raises(UserError, match="no format_version"):
        EvaluationReport.from_dict({})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "no evaluation report"),
        (None, "no evaluation report"),
        ({"format_version": 4}, "damaged: KeyError"),
        ({"format_version": 3}, "damaged: KeyError"),
    ],
)
def test_what_is_no_report_is_refused_in_words(content, message):
    with pytest.raises(UserError, match=message):
        EvaluationReport.from_dict(content)


def test_a_report_of_format_3_has_the_numbers_that_it_had():
    report, old = EvaluationReport.load(FORMAT_3), json.loads(FORMAT_3.read_text(encoding="utf-8"))
    assert report.n_halvings == old["n_splits"]
    assert report.n_permutations == 0
    assert report.multiplicity == ()
    assert report.notes[:-1] == tuple(old["notes"])
    assert f"{old['n_resamples']} bootstrap resamples" in report.notes[-1]
    assert [asdict(info) for info in report.metrics.values()] == old["metrics"]
    assert [asdict(finding) for finding in report.findings] == old["findings"]
    assert [asdict(label) for label in report.labels] == old["labels"]
    for record, before in zip(report.records, old["records"], strict=True):
        assert {name: getattr(record, name) for name in before} == before
        assert record.real_range is None
    value, (low, high) = report.value("wasserstein2"), report.interval("wasserstein2")
    assert low < value < high
    assert f"[{number(low)}, {number(high)}]" in metric_table({"old": report}, report.systems.names)
    assert EvaluationReport.from_dict(report.to_dict()) == report


def test_a_report_of_format_2_has_the_numbers_that_it_had():
    report, old = EvaluationReport.load(FORMAT_2), json.loads(FORMAT_2.read_text(encoding="utf-8"))
    assert report.generators == ("ours", "theirs")
    assert {system.name: system.meaning for system in report.systems} == old["systems"]
    labels = [row["name"] for row in old["figures"]]
    assert [row.label for row in report.rows] == labels
    assert {"wasserstein2[hvg]", "label_agreement[batch]", "depth_ratio"} <= set(labels)
    for row, before in zip(report.rows, old["figures"], strict=True):
        for name in ("group", "direction", "description"):
            assert getattr(row.info, name) == before[name]
        numbers = {system: value for system, value in before["values"].items() if value is not None}
        assert {s: {"value": r.value, "low": r.low, "high": r.high} for s, r in row.values.items()} == numbers
    assert report.metrics["wasserstein2"].display_name == "Wasserstein-2"
    assert report.value("wasserstein2", "ceiling") != report.value("wasserstein2", "ceiling", space="hvg")
    assert report.value("label_agreement", "theirs", condition="batch") is not None
    assert report.value("label_worst_gap", "ceiling", condition="cell_type") is None
    assert [asdict(finding) for finding in report.findings] == old["findings"]
    assert [asdict(label) for label in report.labels] == old["labels"]
    assert EvaluationReport.from_dict(report.to_dict()) == report


def test_names_in_an_old_report_are_matched_with_its_spaces_and_conditions_and_metrics_may_be_forgotten():
    old = json.loads(FORMAT_2.read_text(encoding="utf-8"))
    row = next(row for row in old["figures"] if row["name"] == "label_agreement[batch]")
    figures = [{**row, "name": "odd_metric[a[b]]"}, {**row, "name": "odd[metric]", "group": "depth"}]
    report = EvaluationReport.from_dict({**old, "figures": figures, "conditions": ["a[b]"]})
    assert [(r.info.name, r.condition) for r in report.rows] == [("odd_metric", "a[b]"), ("odd[metric]", None)]
    assert report.metrics["odd_metric"].display_name == "Odd metric"


def test_numbers_that_are_not_finite_never_reach_a_file(report, tmp_path):
    broken = replace(report, records=(Record("wasserstein2", "generated", float("nan")),))
    with pytest.raises(ValueError, match="not JSON compliant"):
        broken.save(tmp_path / "metrics.json")
    assert not (tmp_path / "metrics.json").exists()


def test_unknown_names_are_refused_with_the_nearest(report):
    with pytest.raises(UserError, match="did you mean 'wasserstein2'"):
        report.value("wasserstein")
    for look_up in (report.value, report.interval, report.record):
        with pytest.raises(UserError, match="did you mean 'memoriser'"):
            look_up("wasserstein2", "memorizer")
    with pytest.raises(UserError, match=r"no 'recall' for the space 'hgv'.*did you mean 'hvg'"):
        report.value("recall", space="hgv")
    with pytest.raises(UserError, match=r"no 'label_agreement' for the condition 'cel_type'.*did you mean 'cell_type'"):
        report.value("label_agreement", condition="cel_type")
    with pytest.raises(UserError, match="computed for every condition: name one of 'cell_type', 'batch'"):
        report.value("label_agreement")
    with pytest.raises(UserError, match="'depth_ratio' is not computed for every space; leave space='hvg' out"):
        report.value("depth_ratio", space="hvg")
    with pytest.raises(UserError, match="'recall' is not computed for every condition"):
        report.value("recall", condition="cell_type")


def test_a_distance_is_looked_up_in_the_primary_space_unless_another_is_named(report):
    rows = {row.space: row for row in report.rows if row.info.name == "recall"}
    assert report.record("recall", "ceiling") == report.record("recall", "ceiling", space="pca")
    assert report.record("recall", "ceiling") is rows["pca"].values["ceiling"]
    assert report.record("recall", "ceiling", space="hvg") is rows["hvg"].values["ceiling"]


def small(**changes) -> EvaluationReport:
    infos = (
        MetricInfo("recall", "Recall", "distances", "higher", "R."),
        MetricInfo("mmd2", "MMD²", "distances", "lower", "M."),
        MetricInfo("depth_ratio", "Depth ratio", "depth", "closest to ceiling", "D."),
    )
    content = {
        "records": (
            Record("recall", "ceiling", 0.95, space="pca"),
            Record("recall", "ours", 0.5, 0.4, 0.6, space="pca", real_low=0.7),
            Record("mmd2", "ceiling", -0.001, space="pca"),
            Record("depth_ratio", "ceiling", 1.0),
            Record("depth_ratio", "ours", 12.345, real_low=0.9, real_high=20.0),
        ),
        "metrics": {info.name: info for info in infos},
        "systems": Systems.of({"ceiling": "real", "ours": "ours"}, ("ours",)),
        "labels": (),
        "findings": (Finding("problem", "modes", "ours", "Half of the cells are missing."),),
        "n_cells": 60,
        "multiplicity": (),
        "n_halvings": 2,
        "n_permutations": 39,
        "spaces": {"pca": "PCA"},
        "genes": GeneOverlap(60, 50, None, 50, 49),
        "conditions": (),
        "seed": 3,
        "profile": "standard",
        "notes": ("A note.",),
    }
    return EvaluationReport(**(content | changes))


def test_the_table_shows_values_what_real_cells_score_findings_and_notes_by_group():
    lines = small().table().split("\n")
    assert lines[0].startswith("60 cells on either side, 2 halvings, 49 genes, seed 3")
    assert lines[1] == "in brackets: what real cells would score in 95 % of cases; * worse than that"
    assert lines[3].split() == ["metric", "best", "ceiling", "ours"]
    assert lines[5].split() == ["recall", "higher", "0.950", "0.500", "*", "[0.700", "up]"]
    assert lines[6].split() == ["mmd2", "lower", "-0.0010", "-"]
    assert lines[7] == ""
    assert lines[8].split() == ["depth_ratio", "ceiling", "1.000", "12.35", "[0.900", "-", "20.00]"]
    assert lines[10:] == ["* PROBLEM (ours): Half of the cells are missing.", "", "* A note."]


def test_the_table_of_a_real_evaluation_fits_a_wide_terminal(report):
    lines = report.table().split("\n")
    assert max(map(len, lines)) <= 160
    row = next(line for line in lines if line.startswith("wasserstein2 "))
    high = report.record("wasserstein2").real_high
    assert f"[to {number(high)}]" in row
    assert number(report.value("wasserstein2")) in row
    assert row.split()[2] == number(report.value("wasserstein2", "ceiling"))


def test_values_without_an_interval_and_without_a_number():
    report = small()
    assert report.value("recall") == 0.5
    assert report.interval("recall") == (0.4, 0.6)
    assert report.interval("recall", "ceiling") is None
    assert report.value("mmd2") is None
    assert report.interval("mmd2") is None


def test_figure_and_page_are_made_and_only_the_figure_needs_the_cells(report, real, generated, tmp_path):
    from matplotlib.image import imread

    draw_overview(report, tmp_path / "a.png")
    bare = ad.AnnData(generated.X, var=generated.var)
    draw_overview(evaluate(real, {"ours": bare}, profile="published"), tmp_path / "b.png")
    for name in ("a.png", "b.png"):
        pixels = imread(tmp_path / name)[..., :3]
        assert pixels.shape[1] > 1500
        assert 0.5 < (pixels.min(axis=-1) == 1.0).mean() < 0.98  # something is drawn on a white page
    write_page(report, tmp_path / "a.html", embedding="pca")
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert "wasserstein2" in page
    assert "<img" in page or "<svg" in page
    with pytest.raises(UserError, match="run evaluate again"):
        draw_overview(EvaluationReport.from_dict(report.to_dict()), tmp_path / "c")
