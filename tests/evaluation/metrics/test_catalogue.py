"""The page of metrics in the documentation."""

from pathlib import Path

from scldm.evaluation.metrics import METRICS
from scldm.evaluation.metrics.catalogue import metrics_page

PAGE = Path(__file__).parents[3] / "docs" / "metrics.md"


def test_the_page_is_what_the_registry_says():
    # python -m scldm.evaluation.metrics.catalogue > docs/metrics.md
    assert PAGE.read_text(encoding="utf-8") == metrics_page()


def test_every_metric_says_which_values_there_are_and_where_it_says_little():
    for name, metric in METRICS.items():
        assert metric.values, name
        assert metric.degenerate.endswith("."), name
        assert metrics_page().count(f"(`{name}`)") == 1
