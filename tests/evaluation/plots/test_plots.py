from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_matrix

from scldm.evaluation import EvaluationReport, draw_overview
from scldm.evaluation.cells import Cells
from scldm.evaluation.compare import Fitted, Side
from scldm.evaluation.drawn import DrawnCells, plain
from scldm.evaluation.plots.correlations import clustered_order, correlation_matrix, draw_correlations
from scldm.evaluation.plots.depths import draw_depths, genes_per_cell
from scldm.evaluation.plots.embedding import draw_embedding, joint_positions, place, plane
from scldm.evaluation.plots.genes import abundant_moments, median_curve
from scldm.evaluation.plots.markers import choose_markers, draw_markers, expression_by_label
from scldm.evaluation.plots.memorisation import draw_memorisation
from scldm.evaluation.plots.overview import overview
from scldm.evaluation.plots.style import drawing_style, label_colours, shuffled
from scldm.evaluation.systems import Systems


def cells(counts: object, labels: object = None) -> Cells:
    matrix = csr_matrix(np.asarray(counts, dtype=np.float32))
    table = pd.DataFrame(index=range(matrix.shape[0]))
    if labels is not None:
        table["kind"] = np.asarray(labels, dtype=object)
    return Cells(matrix, pd.Index([f"gene{i}" for i in range(matrix.shape[1])]), table)


def side(n_cells: int, seed: int, labels: bool = True) -> Side:
    """Three labels, each with genes of its own; positions follow the labels."""
    rng = np.random.default_rng(seed)
    kind = np.arange(n_cells) % 3
    rate = np.full((3, 60), 1.0)
    for i in range(3):
        rate[i, 4 * i : 4 * i + 4] = 12.0
    features = rng.normal(size=(n_cells, 5))
    features[:, 0] += 8 * kind
    own = np.array(["$a", "b", "c$"], dtype=object)[kind] if labels else None
    return Side(cells(rng.poisson(rate[kind]), own), {"pca": features})


SIDES = {
    "reference": side(90, 0),
    "ceiling": side(90, 1),
    "generated": side(90, 2),
    "other": side(90, 5, labels=False),
    "independent_nb": side(90, 3),
    "memoriser": side(90, 4),
}


FITTED = Fitted({}, {}, fitting=SIDES["memoriser"], training=SIDES["memoriser"])


def plotted(sides: dict[str, Side], generators: tuple[str, ...], label: str | None) -> DrawnCells:
    systems = Systems.of({name: "" for name in sides if name != "reference"}, generators)
    return DrawnCells.of(sides, systems, FITTED, label)


@pytest.fixture
def plotted_cells() -> DrawnCells:
    return plotted(SIDES, ("generated", "other"), "kind")


def test_systems_are_sorted_into_generators_and_baselines(plotted_cells: DrawnCells) -> None:
    assert plotted_cells.systems.generators == ("generated", "other")
    assert plotted_cells.systems.baselines == ("independent_nb",)
    assert plotted_cells.labels("other") is None
    assert plotted_cells.frequent_labels() == ["$a", "b", "c$"]


def test_a_label_that_the_cells_do_not_have_is_no_label() -> None:
    assert plotted(SIDES, ("generated",), "tissue").label is None


def test_every_system_has_a_colour_of_its_own() -> None:
    meanings = dict.fromkeys(
        ("ceiling", "generated", "a", "b", "independent_nb", "pca_gaussian", "scvi", "memoriser"), ""
    )
    systems = Systems.of(meanings, ("generated", "a", "b"))
    drawn = DrawnCells({}, systems, FITTED, None)
    assert len({drawn.colour(name) for name in (*systems.names, "reference")}) == 9


def test_frequent_labels_come_first_when_there_are_too_many() -> None:
    labels = [f"label{i:02d}" for i in range(25) for _ in range(2 if i < 5 else 3)]
    many = Side(cells(np.ones((len(labels), 2)), labels), {"pca": np.zeros((len(labels), 2))})
    colours = label_colours(plotted({"reference": many}, (), "kind"))
    assert list(colours) == [f"label{i:02d}" for i in range(5, 24)]
    assert len(set(colours.values())) == 19


def test_dollar_signs_are_kept_from_being_mathematics() -> None:
    from matplotlib.cbook import is_math_text

    name = "$x$ and $y$"
    assert is_math_text(name)
    assert not is_math_text(plain(name))


def test_cells_to_draw_are_the_same_every_time_and_at_most_so_many() -> None:
    chosen = shuffled(100, 30)
    assert len(set(chosen)) == 30
    assert not (np.diff(chosen) > 0).all()
    np.testing.assert_array_equal(chosen, shuffled(100, 30))


def test_plane_finds_the_directions_of_variance() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(400, 4)) * [0.1, 5.0, 0.1, 1.0]
    centre, axes = plane([points[:100], points[100:]])
    np.testing.assert_allclose(centre, points.mean(axis=0))
    np.testing.assert_allclose(axes, [[0, 1, 0, 0], [0, 0, 0, 1]], atol=0.05)


def test_principal_components_keep_distances_in_a_plane() -> None:
    rng = np.random.default_rng(0)
    features = {"a": rng.normal(size=(30, 2)), "b": rng.normal(size=(20, 2))}
    positions, axis = joint_positions(features, "pca")
    assert axis == "PC"
    before = np.linalg.norm(features["a"][:20] - features["b"], axis=1)
    np.testing.assert_allclose(np.linalg.norm(positions["a"][:20] - positions["b"], axis=1), before)


def test_one_feature_is_drawn_on_a_line() -> None:
    positions, _ = joint_positions({"a": np.arange(4.0)[:, None]}, "pca")
    np.testing.assert_allclose(np.abs(positions["a"]), [[1.5, 0], [0.5, 0], [0.5, 0], [1.5, 0]])


def test_few_cells_have_no_umap() -> None:
    positions, axis = joint_positions({"a": np.eye(49, 3)}, "umap")
    assert axis == "PC"
    assert positions["a"].shape == (49, 2)


def test_umap_leaves_the_number_of_threads_as_it_was() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        joint_positions({"a": np.random.default_rng(0).normal(size=(60, 5))}, "umap")
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_umap_separates_what_is_separate() -> None:
    rng = np.random.default_rng(0)
    features = {"a": rng.normal(size=(40, 4)), "b": rng.normal(size=(40, 4)) + 60.0}
    positions, axis = joint_positions(features, "umap")
    assert axis == "UMAP"
    inside = np.linalg.norm(positions["a"] - positions["a"].mean(axis=0), axis=1).max()
    assert np.linalg.norm(positions["b"].mean(axis=0) - positions["a"].mean(axis=0)) > 2 * inside


def test_median_curve_in_bins() -> None:
    x = np.repeat(np.arange(6.0), 9)
    middles, curve = median_curve(x, x**2 + np.tile(np.arange(9.0) - 4, 6))
    np.testing.assert_allclose(middles, (np.arange(6) + 0.5) * 5 / 6)
    np.testing.assert_allclose(curve, np.arange(6.0) ** 2)


def test_median_curve_has_gaps_where_genes_are_few() -> None:
    x = np.concatenate([np.zeros(10), [1.0]])
    np.testing.assert_array_equal(np.isnan(median_curve(x, x)[1]), [False, *[True] * 5])


def test_dispersion_of_negative_binomial_counts_does_not_depend_on_depth() -> None:
    rng = np.random.default_rng(0)
    depth = np.exp(rng.normal(0, 0.5, size=(4000, 1)))
    mean = depth * np.array([2.0] * 20 + [5.0] * 20)
    poisson = rng.poisson(mean[:, :20])
    overdispersed = rng.poisson(mean[:, 20:] * rng.gamma(2.0, 0.5, size=(4000, 20)))  # variance mu + mu^2 / 2
    # depth is what the cells were sequenced to: a gene that does not vary carries it
    counts = np.hstack([poisson, overdispersed, np.rint(depth * 3000)])
    found = abundant_moments(cells(counts))
    dispersions = found.dispersions[0]
    np.testing.assert_allclose(found.mean_counts[0, :-1], counts[:, :-1].mean(axis=0))
    assert np.mean(dispersions[:20]) == pytest.approx(0.0, abs=0.02)
    assert np.mean(dispersions[20:40]) == pytest.approx(0.5, abs=0.05)


def test_expression_by_label() -> None:
    some = cells([[2, 0], [0, 5], [1, 1], [0, 3]], ["x", "x", "y", None])
    found = expression_by_label(some, some.labels["kind"].to_numpy(), ["x", "y", "z"])
    np.testing.assert_array_equal(found.n_cells, [2, 1, 0])
    np.testing.assert_allclose(found.shares, [[0.5, 0.5], [1, 1], [0, 0]])
    full, half = np.log1p(1e4), np.log1p(5e3)
    np.testing.assert_allclose(found.means, [[full / 2, full / 2], [half, half], [0, 0]], rtol=1e-6)


def test_markers_are_the_genes_of_their_label() -> None:
    some = SIDES["reference"].cells
    markers = choose_markers(some, some.labels["kind"].to_numpy(), ["$a", "b", "c$"])
    assert [label for label, _ in markers] == ["$a"] * 3 + ["b"] * 3 + ["c$"] * 3
    assert all(gene // 4 == number // 3 for number, (_, gene) in enumerate(markers))
    assert len({gene for _, gene in markers}) == 9


def test_correlations_are_those_of_numpy() -> None:
    values = np.random.default_rng(0).normal(size=(50, 4))
    np.testing.assert_allclose(correlation_matrix(values), np.corrcoef(values, rowvar=False))


def test_correlations_within_labels_ignore_differences_between_them() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(2000, 2))
    label = np.array(["a", "b"], dtype=object)[np.arange(2000) % 2]
    shifted = values + 5.0 * (label == "b")[:, None]
    assert correlation_matrix(shifted)[0, 1] > 0.8
    np.testing.assert_allclose(correlation_matrix(shifted, label), correlation_matrix(values, label), atol=1e-12)


def test_clustering_puts_correlated_genes_side_by_side() -> None:
    rng = np.random.default_rng(0)
    programmes = rng.normal(size=(300, 2))
    values = np.repeat(programmes, 3, axis=1)[:, [0, 3, 1, 4, 2, 5]] + 0.1 * rng.normal(size=(300, 6))
    order = clustered_order(correlation_matrix(values))
    assert {frozenset(order[:3] % 2), frozenset(order[3:] % 2)} == {frozenset([0]), frozenset([1])}


def test_genes_per_cell() -> None:
    np.testing.assert_array_equal(genes_per_cell(cells([[0, 0], [3, 0], [1, 2]])), [0, 1, 2])


def test_markers_name_labels_and_genes_in_order(plotted_cells: DrawnCells) -> None:
    figure = draw_markers(plotted_cells)
    assert figure is not None
    panels = [ax for ax in figure.axes if ax.get_title(loc="left")]
    assert [ax.get_title(loc="left") for ax in panels] == ["held-out real cells, by kind", "generated cells, by kind"]
    assert [text.get_text() for text in panels[0].get_yticklabels()] == [r"\$a", "b", r"c\$"]
    scales = [ax.collections[0].get_clim() for ax in panels]
    assert scales[0] == scales[1]


def test_there_are_no_markers_without_labels() -> None:
    assert draw_markers(plotted(SIDES, ("generated",), None)) is None


def test_embedding_has_a_panel_for_every_generator_and_one_for_both(plotted_cells: DrawnCells) -> None:
    placement = place(plotted_cells, "pca")
    titles = [ax.get_title() for ax in draw_embedding(plotted_cells, placement).axes]
    assert titles == ["held-out real cells", "generated cells", "other", "both"]
    assert [ax.get_title() for ax in draw_embedding(plotted_cells, placement, overlay=False).axes][-1] == ""


def test_correlation_maps_say_how_well_they_agree(plotted_cells: DrawnCells) -> None:
    figure, genes = draw_correlations(plotted_cells, np.arange(12))
    titles = [ax.get_title() for ax in figure.axes]
    assert titles[0] == "held-out real cells"
    assert titles[1].startswith("real against real (r = 0.9")
    assert sorted(genes) == sorted(f"gene{i}" for i in range(12))
    # the generator without labels has no map within labels
    assert [text.get_text() for ax in figure.axes for text in ax.texts] == ["no labels"]


def test_memorisation_says_which_system_copies(plotted_cells: DrawnCells) -> None:
    figure = draw_memorisation(plotted_cells)
    assert figure is not None
    legend = figure.axes[0].get_legend()
    assert legend is not None
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts[-1] == "memoriser (100% are exact copies)" or "memoriser (100% are exact copies)" in texts
    ratios = np.asarray(figure.axes[1].collections[0].get_offsets())
    assert len(ratios) == 3
    assert ((ratios[:, 0] > 0.6) & (ratios[:, 0] < 1.6)).all()


def test_depths_are_drawn_with_their_medians(plotted_cells: DrawnCells) -> None:
    figure = draw_depths(plotted_cells)
    legend = figure.axes[0].get_legend()
    assert legend is not None
    median = np.median(SIDES["reference"].cells.library_size)
    assert legend.get_texts()[0].get_text() == f"held-out real cells (median {median:,.0f})"


@pytest.mark.parametrize("label", [None, "d"])
def test_a_system_without_a_drawn_label_has_no_boxes(label: str | None) -> None:
    strange = side(90, 5)
    strange.cells.labels["kind"] = np.full(90, label, dtype=object)
    few = {"reference": SIDES["reference"], "generated": SIDES["generated"]}
    boxes = [
        len(draw_depths(plotted(sides, names, "kind")).axes[2].patches)
        for sides, names in ((few, ("generated",)), ({**few, "strange": strange}, ("generated", "strange")))
    ]
    assert boxes == [6, 6]  # three labels of two systems


def test_memorisation_is_drawn_when_every_system_copies() -> None:
    copies = dict.fromkeys(("reference", "generated", "memoriser"), SIDES["memoriser"])
    figure = draw_memorisation(plotted(copies, ("generated",), "kind"))
    assert figure is not None
    legend = figure.axes[0].get_legend()
    assert legend is not None
    assert all("100% are exact copies" in text.get_text() for text in legend.get_texts())


def test_overview_is_written_with_names_that_look_like_mathematics(tmp_path: Path) -> None:
    sides = {name: side for name, side in SIDES.items() if name != "generated"}
    with drawing_style():
        overview(plotted(sides, ("other",), "kind"), "$\\broken{$").savefig(tmp_path / "overview.png", dpi=150)
    assert matplotlib.image.imread(tmp_path / "overview.png").shape == (1230, 2025, 4)


def test_overview_is_of_the_first_generator_and_a_baseline(report: EvaluationReport, tmp_path: Path) -> None:
    assert report.drawn is not None
    meanings = {system.name: system.meaning for system in report.systems}
    systems = Systems.of({**meanings, "second": ""}, ("generated", "second"))
    sides = {"second": report.drawn.sides["memoriser"], **report.drawn.sides}
    more = replace(report, systems=systems, drawn=replace(report.drawn, systems=systems, sides=sides))
    draw_overview(report, tmp_path / "one.png")
    draw_overview(more, tmp_path / "two.png")
    one, two = (matplotlib.image.imread(tmp_path / name) for name in ("one.png", "two.png"))
    np.testing.assert_array_equal(one, two)


def test_overview_needs_only_two_systems(tmp_path: Path) -> None:
    few = {name: SIDES[name] for name in ("reference", "generated")}
    overview(plotted(few, ("generated",), None), "two").savefig(tmp_path / "overview.png")
    assert matplotlib.image.imread(tmp_path / "overview.png").std() > 0.05
