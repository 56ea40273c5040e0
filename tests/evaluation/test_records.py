import subprocess
import sys

import pytest

from scldm import evaluation
from scldm.evaluation.records import MetricInfo, Record, Row, rows_of
from scldm.evaluation.systems import Systems

RECALL = MetricInfo("recall", "Recall", "distances", "higher", "R.")
AGREEMENT = MetricInfo("label_agreement", "Label agreement", "labels", "closest to ceiling", "A.")


def test_records_are_gathered_by_metric_space_and_condition_in_the_order_in_which_they_come():
    records = [
        Record("recall", "ceiling", 0.9, space="pca"),
        Record("recall", "ours", 0.8, 0.7, 0.9, space="pca"),
        Record("recall", "ours", 0.6, space="hvg"),
        Record("label_agreement", "ours", 0.5, condition="cell_type"),
    ]
    rows = rows_of(records, {"recall": RECALL, "label_agreement": AGREEMENT})
    assert rows == (
        Row(RECALL, "pca", None, {"ceiling": records[0], "ours": records[1]}),
        Row(RECALL, "hvg", None, {"ours": records[2]}),
        Row(AGREEMENT, None, "cell_type", {"ours": records[3]}),
    )
    assert [row.label for row in rows] == ["recall", "recall[hvg]", "label_agreement[cell_type]"]
    assert [record.interval for record in records[:2]] == [None, (0.7, 0.9)]


def test_systems_are_in_order_with_names_and_colours_of_their_own():
    names = ("memoriser", "scvi", "b", "pca_gaussian", "a", "ceiling")
    systems = Systems.of({name: f"what {name} is" for name in names}, ("b", "a"))
    assert systems.names == ("ceiling", "b", "a", "scvi", "pca_gaussian", "memoriser")
    assert systems.generators == ("b", "a")
    assert systems.baselines == ("scvi", "pca_gaussian")
    assert systems.of_kind("memoriser") == ("memoriser",)
    assert len({system.colour for system in systems}) == 6
    assert systems.named("scvi").meaning == "what scvi is"
    assert systems.named("scvi").display_name == "scVI"
    assert systems.named("a").display_name == "a"
    with pytest.raises(KeyError):
        systems.named("c")
    fewer = systems.restricted_to(["a", "memoriser"])
    assert fewer.names == ("a", "memoriser")
    assert fewer.named("a").colour == systems.named("a").colour


@pytest.mark.parametrize("module", ["records", "systems", "verdict"])
def test_numbers_and_names_load_no_library_of_cells_figures_or_fitting(module):
    code = f"""
import sys
import types
from pathlib import Path
# the package above has public names of its own, which are not what is looked at here
package = types.ModuleType("scldm")
package.__path__ = [str(Path({__file__!r}).parents[2] / "scldm")]
sys.modules["scldm"] = package
import scldm.evaluation.{module}
heavy = {{"anndata", "scanpy", "sklearn", "matplotlib", "scipy", "torch"}} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_is_found_when_it_is_asked_for():
    assert sorted(name for names in evaluation._MODULES.values() for name in names) == sorted(evaluation.__all__)
    for name in evaluation.__all__:
        assert getattr(evaluation, name) is not None
        assert name in dir(evaluation)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = evaluation.nothing
