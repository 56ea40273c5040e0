import json

import anndata as ad
import pytest

from scldm.errors import UserError
from scldm.evaluation import EvaluationReport, FigureValues, Finding, GeneOverlap, Value, evaluate
from scldm.evaluation.table import number


@pytest.fixture(scope="module")
def report(real, generated, train) -> EvaluationReport:
    return evaluate(real, generated, train=train, conditions=["cell_type", "batch"], n_splits=1, n_resamples=20)


def test_the_json_file_round_trips_and_names_everything(report, tmp_path):
    path = tmp_path / "metrics.json"
    report.save(path)
    content = json.loads(path.read_text())
    assert content["format_version"] == 2
    assert content["profile"] == "standard"
    assert content["generators"] == ["generated"]
    first = content["figures"][0]
    assert (first["name"], first["group"], first["direction"]) == ("wasserstein2", "distances", "lower")
    assert first["description"]
    assert first["values"]["generated"]["value"] == report.value("wasserstein2")
    assert (first["values"]["generated"]["low"], first["values"]["generated"]["high"]) == report.interval(
        "wasserstein2"
    )
    assert {row["condition"] for row in content["labels"]} >= {"cell_type"}
    assert EvaluationReport.load(path) == report
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.json"]


def test_other_formats_are_refused_in_words(report):
    content = report.to_dict()
    with pytest.raises(UserError, match="format 3; this version of scldm reads 2"):
        EvaluationReport.from_dict(content | {"format_version": 3})
    with pytest.raises(UserError, match=r"format 1.*run evaluate again"):
        EvaluationReport.from_dict(content | {"format_version": 1})
    with pytest.raises(UserError, match="format None"):
        EvaluationReport.from_dict({})


def test_numbers_that_are_not_finite_never_reach_a_file(report, tmp_path):
    row = FigureValues("odd", "genes", "lower", "Odd.", {"generated": Value(float("nan"))})
    broken = EvaluationReport(**{**vars(report), "figures": (row,)})
    with pytest.raises(ValueError, match="not JSON compliant"):
        broken.save(tmp_path / "metrics.json")
    assert not (tmp_path / "metrics.json").exists()


def test_unknown_names_are_refused_with_the_nearest(report):
    with pytest.raises(UserError, match="did you mean 'wasserstein2'"):
        report.value("wasserstein")
    with pytest.raises(UserError, match="did you mean 'memoriser'"):
        report.value("wasserstein2", "memorizer")
    with pytest.raises(UserError, match="did you mean 'memoriser'"):
        report.interval("wasserstein2", "memorizer")


def small(**changes) -> EvaluationReport:
    rows = (
        FigureValues("recall", "distances", "higher", "R.", {"ceiling": Value(0.95), "ours": Value(0.5, 0.4, 0.6)}),
        FigureValues("mmd2", "distances", "lower", "M.", {"ceiling": Value(-0.001), "ours": None}),
        FigureValues(
            "depth_ratio", "depth", "closest to ceiling", "D.", {"ceiling": Value(1.0), "ours": Value(12.345)}
        ),
    )
    content = {
        "figures": rows,
        "systems": {"ceiling": "real", "ours": "ours"},
        "generators": ("ours",),
        "labels": (),
        "findings": (Finding("problem", "modes", "ours", "Half of the cells are missing."),),
        "n_cells": 60,
        "n_splits": 2,
        "n_resamples": 20,
        "spaces": {"pca": "PCA"},
        "genes": GeneOverlap(60, 50, None, 50, 49),
        "conditions": (),
        "seed": 3,
        "profile": "standard",
        "notes": ("A note.",),
    }
    return EvaluationReport(**(content | changes))


def test_the_table_shows_values_intervals_findings_and_notes_by_group():
    lines = small().table().split("\n")
    assert lines[0].startswith("60 cells on either side, 2 splits, 49 genes, seed 3")
    assert lines[2].split() == ["figure", "best", "ceiling", "ours"]
    assert lines[4].split() == ["recall", "higher", "0.950", "0.500", "[0.400,", "0.600]"]
    assert lines[5].split() == ["mmd2", "lower", "-0.0010", "-"]
    assert lines[6] == ""
    assert lines[7].split() == ["depth_ratio", "ceiling", "1.000", "12.35"]
    assert lines[9:] == ["* PROBLEM (ours): Half of the cells are missing.", "", "* A note."]


def test_the_table_of_a_real_evaluation_fits_a_wide_terminal(report):
    lines = report.table().split("\n")
    assert max(map(len, lines)) <= 160
    row = next(line for line in lines if line.startswith("wasserstein2 "))
    low, high = report.interval("wasserstein2")
    assert f"{number(report.value('wasserstein2'))} [{number(low)}, {number(high)}]" in row
    assert row.split()[2] == number(report.value("wasserstein2", "ceiling"))


def test_values_without_an_interval_and_without_a_number():
    report = small()
    assert report.value("recall") == 0.5
    assert report.interval("recall") == (0.4, 0.6)
    assert report.interval("recall", "ceiling") is None
    assert report.value("mmd2") is None
    assert report.interval("mmd2") is None


def test_the_picture_and_the_page_are_made_and_need_the_cells(report, real, generated, tmp_path):
    from matplotlib.image import imread

    report.plot(tmp_path / "a.png")
    bare = ad.AnnData(generated.X, var=generated.var)
    evaluate(real, {"ours": bare}, profile="published").plot(tmp_path / "b.png")
    for name in ("a.png", "b.png"):
        pixels = imread(tmp_path / name)[..., :3]
        assert pixels.shape[1] > 1500
        assert 0.5 < (pixels.min(axis=-1) == 1.0).mean() < 0.98  # something is drawn on a white page
    report.save_html(tmp_path / "a.html")
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert "wasserstein2" in page
    assert "<img" in page or "<svg" in page
    read = EvaluationReport.from_dict(report.to_dict())
    for save in (read.plot, read.save_html):
        with pytest.raises(UserError, match="run evaluate again"):
            save(tmp_path / "c")
