from __future__ import annotations

import base64
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
from jinja2 import UndefinedError

from scldm.evaluation import EvaluationReport, Finding, LabelFidelity, MetricInfo, Record, Row, Systems, evaluate
from scldm.evaluation.page.labels import label_tables
from scldm.evaluation.page.metrics import NOTHING, count_ranks, metric_sections, number, strip_of
from scldm.evaluation.page.write import environment, write_page
from scldm.evaluation.records import Value

MINUS = "\N{MINUS SIGN}"
VOID = {"meta", "img", "br", "col"}


class Page(HTMLParser):
    """Checks that tags are balanced, and keeps text, addresses and images."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.text = ""
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            assert not name.startswith("on")
            if name in ("src", "href", "srcset", "data", "action"):
                self.addresses.append(value or "")
            if name == "id":
                self.ids.append(value or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def write(report: EvaluationReport, tmp_path: Path) -> tuple[str, Page]:
    write_page(report, tmp_path / "report.html", embedding="pca")
    source = (tmp_path / "report.html").read_text(encoding="utf-8")
    return source, Page(source)


INFO = MetricInfo("metric", "A metric", "distances", "lower", "what it is")


def row(*, space: str | None = "pca", **values: float) -> Row:
    real = values.get("ceiling")
    return Row(INFO, space, None, {name: Record("metric", name, v, real_high=real) for name, v in values.items()})


def systems_of(*names: str, generators: tuple[str, ...] = ("ours",)) -> Systems:
    return Systems.of(dict.fromkeys(names, ""), generators)


@pytest.fixture(scope="session")
def source(report: EvaluationReport, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of `report`, with one note more."""
    return write(replace(report, notes=("Mind the gap.",)), tmp_path_factory.mktemp("page"))[0]


def test_ranks_are_counted() -> None:
    rows = [row(ceiling=1.0, ours=own, nb=2.0) for own in (1.0, 1.5, 1.9, 2.5)] + [row(ours=1.0)]
    # the model's own space says nothing about anyone's rank
    rows += [replace(rows[0], space="latent"), replace(rows[3], space="latent")]
    assert count_ranks(rows, "ours", ["nb"]) == {"ceiling": 1, "between": 2, "behind": 1}


def test_a_metric_is_described_once_and_every_space_is_a_section(report: EvaluationReport, source: str) -> None:
    rows = [row(ours=1.0, ceiling=1.0), row(ours=2.0, space="hvg")]
    heading = "Distances between clouds of cells"
    assert metric_sections(rows) == {(heading, "pca"): rows[:1], (heading, "hvg"): rows[1:]}
    described = [f"{metric.description}</span>" for metric in report.metrics.values()]
    assert [unescape(source).count(text) for text in described] == [1] * len(described)


def test_the_page_says_that_the_latent_space_is_the_models_own(report: EvaluationReport, tmp_path: Path) -> None:
    latent = replace(report.records[0], space="latent")
    more = replace(
        report, records=(*report.records, latent), spaces={**report.spaces, "latent": "4 coordinates"}, drawn=None
    )
    _, page = write(more, tmp_path)
    assert page.text.count("the model's own space") == 1
    assert "4 coordinates; the model's own space, so these metrics count neither" in page.text


@pytest.mark.parametrize(
    ("value", "like", "text"),
    [
        (None, None, NOTHING),
        (float("nan"), None, NOTHING),
        (0.0, None, "0"),
        (12345.6, None, "12,346"),
        (12.345, None, "12.3"),
        (1.0, None, "1.00"),
        (0.12345, None, "0.123"),
        (-0.0012345, None, f"{MINUS}0.00123"),
        (0.5, 12.3, "0.5"),
        (0.0004, 0.0, "0.00040"),
    ],
)
def test_numbers_have_three_digits(value: float | None, like: float | None, text: str) -> None:
    assert number(value, like) == text


@pytest.mark.parametrize("module", ["page", "plots.embedding"])
def test_figures_and_templates_are_loaded_when_a_page_is_asked_for(module: str) -> None:
    code = f"""
import sys
import types
from pathlib import Path
# the package above has public names of its own, which are not what is looked at here
package = types.ModuleType("scldm")
package.__path__ = [str(Path({__file__!r}).parents[3] / "scldm")]
sys.modules["scldm"] = package
import scldm.evaluation.{module}
heavy = {{"matplotlib", "jinja2"}} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_name_that_a_template_lacks_is_an_error() -> None:
    with pytest.raises(UndefinedError):
        environment().from_string("{{ nothing }}").render()


def test_text_is_escaped() -> None:
    made = environment().from_string('<p title="{{ text }}">{{ text }}</p>').render(text='a < b & "c" <br>')
    assert made == '<p title="a &lt; b &amp; &#34;c&#34; &lt;br&gt;">a &lt; b &amp; &#34;c&#34; &lt;br&gt;</p>'


def test_strip_places_values_on_one_scale() -> None:
    systems = systems_of("ceiling", "ours", "nb", "memoriser")
    values = {
        "ceiling": Record("metric", "ceiling", 1.0, 0.0, 2.0),
        "ours": Record("metric", "ours", 5.0, 4.0, 6.0),
        "nb": Record("metric", "nb", 10.0),
    }
    marks = strip_of(values, systems)
    strip = environment().from_string('{% from "strip.html.j2" import strip %}{{ strip(marks) }}').render(marks=marks)
    # 160 wide with margins of 8: 0 is at 8, 10 at 152
    assert '<rect x="8.0" y="2" width="28.8"' in strip
    assert '<circle cx="80.0"' in strip
    assert 'points="147.0,13 152.0,8 157.0,13 152.0,18"' in strip
    assert "ceiling" not in strip.split("<title>")[0]
    assert strip_of({}, systems) == []


def fidelity(label: str, n_real: int, real: Value | None, own: Value | None, n_own: int = 5000) -> LabelFidelity:
    return LabelFidelity(
        condition="kind",
        label=label,
        n_real=n_real,
        n_generated={"generated": n_own},
        rare=n_real < 20,
        agreement={"real": real, "generated": own},
        depth_ratio={"generated": 0.5 if own else None},
    )


def test_label_differences_are_coloured_by_size_unless_chance_explains_them() -> None:
    labels = (
        fidelity("grave", 90_000, Value(0.8), Value(0.5)),
        fidelity("notable", 80_000, Value(0.8), Value(0.87)),
        fidelity("small", 70_000, Value(0.8), Value(0.83)),
        fidelity("chance", 60, Value(0.8, 0.6, 1.1), Value(0.6, 0.4, 0.8), n_own=10),
        fidelity("missing", 50, Value(0.8), None, n_own=0),
        fidelity("rare one", 5, None, Value(1.0)),
    )
    tables = label_tables(labels)
    systems = systems_of("generated", generators=("generated",))
    html = environment().get_template("labels.html.j2").render(content=tables, systems=systems)
    rows = {part.split('class="name">')[1].split("<")[0].strip(): part for part in html.split("<tr")[3:]}
    assert list(rows) == ["grave", "notable", "small", "chance", "missing", "rare one"]
    assert 'class="grave"' in rows["grave"]
    assert "left:0.0%;width:50.0%" in rows["grave"]
    assert f"{MINUS}30" in rows["grave"]
    assert 'class="notable"' in rows["notable"]
    assert "+7<" in rows["notable"]
    assert 'class="small"' in rows["small"]
    assert 'class="unsure"' in rows["chance"]
    assert "60% … 100%" in rows["chance"]
    assert "side behind" in rows["missing"]
    assert "badge" in rows["rare one"]


def test_page_is_whole_and_needs_nothing_from_outside(source: str) -> None:
    page = Page(source)
    assert source.startswith("<!DOCTYPE html>")
    assert "script" not in page.tags
    assert "link" not in page.tags
    images = [address for address in page.addresses if address.startswith("data:image/png;base64,")]
    others = [address for address in page.addresses if not address.startswith("data:image/png;base64,")]
    assert all(base64.b64decode(p.split(",")[1]).startswith(b"\x89PNG") for p in images)
    assert len(images) == 8  # two conditions: two embeddings, two dot plots
    assert {address.removeprefix("#") for address in others} == set(page.ids)
    assert not re.search(r"https?://|url\(|@import", source)


def test_page_has_every_metric_finding_label_and_note(report: EvaluationReport, source: str) -> None:
    page = Page(source)
    for row in report.rows:
        assert f'title="{row.label}: ' in source
        assert row.info.description in page.text
        assert row.info.display_name in page.text
    assert report.findings
    for finding in report.findings:
        assert finding.sentence in page.text
    for label in report.labels:
        assert label.label in page.text
    for meaning in (*(system.meaning for system in report.systems), *report.spaces.values(), "Mind the gap."):
        assert meaning in page.text


def test_the_same_report_gives_the_same_page(report: EvaluationReport, source: str, tmp_path: Path) -> None:
    assert write(replace(report, notes=("Mind the gap.",)), tmp_path)[0] == source
    assert list(tmp_path.iterdir()) == [tmp_path / "report.html"]


def test_the_published_profile_has_no_ceiling_to_stand_at(
    real: ad.AnnData, generated: ad.AnnData, train: ad.AnnData, tmp_path: Path
) -> None:
    report = evaluate(real, generated, train=train, profile="published", n_permutations=39)
    source, page = write(report, tmp_path)
    assert "ceiling" not in report.systems.names
    assert 'class="mark"' not in source
    assert "The ceiling is" not in page.text
    assert "real against real" not in page.text


def test_a_report_from_a_file_has_numbers_and_no_figures(report: EvaluationReport, tmp_path: Path) -> None:
    source, page = write(EvaluationReport.from_dict(report.to_dict()), tmp_path)
    assert "img" not in page.tags
    assert "no cells to draw" in page.text
    assert source.count('class="metrics"') == 1


def test_problems_come_first(report: EvaluationReport, tmp_path: Path) -> None:
    findings = tuple(
        Finding(level, "depth", "generated", f"It is {level}.") for level in ("good", "warning", "problem")
    )
    _, page = write(replace(report, findings=findings, drawn=None), tmp_path)
    places = [page.text.index(f"It is {level}.") for level in ("problem", "warning", "good")]
    assert places == sorted(places)


def test_hostile_names_are_only_text(
    real: ad.AnnData, generated: ad.AnnData, train: ad.AnnData, tmp_path: Path
) -> None:
    evil, gene = '<script>alert("1")</script> & $\\frac{', "<b onclick='x'>&amp;$g$"
    files = []
    for adata in (real, generated, train):
        adata = adata.copy()
        adata.obs["<i>kind</i>"] = adata.obs["cell_type"].astype(str).replace({"T": evil})
        adata.var_names = [gene, *adata.var_names[1:]]
        files.append(adata)
    system = "<img src=http://example.org/x>"
    report = evaluate(
        files[0], {system: files[1]}, train=files[2], conditions=["<i>kind</i>"], n_halvings=1, n_permutations=39
    )
    source, page = write(report, tmp_path)
    assert "script" not in page.tags
    # only the bars of differences are <i>, and all images are the page's own
    assert page.tags.count("i") == source.count('<i class="')
    assert all(address.startswith(("#", "data:image/png")) for address in page.addresses)
    for name in (evil, system, "<i>kind</i>"):
        assert name in page.text
        assert name not in source
    assert gene in unescape(source)
    assert gene not in source


def test_page_without_conditions_and_training_cells(real: ad.AnnData, generated: ad.AnnData, tmp_path: Path) -> None:
    report = evaluate(real, generated, n_halvings=1, n_permutations=39)
    _, page = write(report, tmp_path)
    assert page.ids == ["findings", "metrics", "embedding", "genes", "correlations", "depth", "notes"]
    assert "The memoriser is the training cells" not in page.text


@pytest.mark.parametrize("label", [None, "plasma"])
def test_a_generator_whose_cells_have_no_known_label_is_drawn(
    label: str | None, real: ad.AnnData, generated: ad.AnnData, train: ad.AnnData, tmp_path: Path
) -> None:
    strange = generated.copy()
    strange.obs["cell_type"] = np.full(strange.n_obs, label, dtype=object)
    report = evaluate(real, strange, train=train, conditions=["cell_type"], n_halvings=1, n_permutations=39)
    _, page = write(report, tmp_path)
    assert "depth" in page.ids


def test_copies_of_training_cells_are_drawn(train: ad.AnnData, tmp_path: Path) -> None:
    report = evaluate(train, train, train=train, conditions=["cell_type"], n_halvings=1, n_permutations=39)
    _, page = write(report, tmp_path)
    assert "memorisation" in page.ids


def test_several_generators_have_a_column_each(
    make_cells: Callable[..., ad.AnnData], real: ad.AnnData, train: ad.AnnData, tmp_path: Path
) -> None:
    bare = make_cells(100, seed=8)
    del bare.obs["cell_type"]
    report = evaluate(
        real,
        {"first": make_cells(100, seed=7), "second": bare},
        train=train,
        conditions=["cell_type"],
        n_halvings=1,
        n_permutations=39,
    )
    source, page = write(report, tmp_path)
    head = re.search(r'class="metrics"><thead>.*?</thead>', source, re.DOTALL)
    assert head is not None
    names = [re.sub("<.*?>", "", cell) for cell in re.findall("<th .*?</th>", head.group())]
    assert names[2:] == ["ceiling", "first", "second", "independent NB", "PCA Gaussian", "memoriser"]
    assert "How real are cells from first and second?" in page.text
