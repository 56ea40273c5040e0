"""Reports of earlier formats, turned into the present one step by step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from scldm.errors import UserError
from scldm.evaluation.metrics import METRICS
from scldm.evaluation.metrics.kernels import MMD2_PUBLISHED
from scldm.evaluation.records import PRIMARY_SPACE, in_words
from scldm.evaluation.systems import Systems

__all__ = ["FORMAT_VERSION", "to_present_format"]

FORMAT_VERSION = 4

OLD_INTERVALS = (
    "This report was made by an earlier version of scldm: its intervals come from {n_resamples} bootstrap resamples, "
    "and it does not say what real cells would score."
)


def to_present_format(values: Any) -> Mapping[str, Any]:
    """Turn what a report was saved as into what it would be saved as today.

    Raises ``UserError`` for format 1, which has no intervals, and for one that this version does not know.
    """
    version = values.get("format_version") if isinstance(values, Mapping) else None
    if version is None:
        raise UserError("This is no evaluation report: it has no format_version")
    if version == 1:
        raise UserError(
            "This evaluation report has format 1, from an earlier version of scldm, whose metrics have no intervals; "
            "run evaluate again to make it anew"
        )
    for older, newer in _STEPS.items():
        if version == older:
            values = newer(values)
            version = values["format_version"]
    if version != FORMAT_VERSION:
        raise UserError(
            f"This evaluation report has format {version}; this version of scldm reads 2 to {FORMAT_VERSION}"
        )
    return values


def _from_2_to_3(values: Mapping[str, Any]) -> dict[str, Any]:
    """Turn rows of values by system, whose names hold the space or the condition, into records."""
    kept = {name: value for name, value in values.items() if name not in ("figures", "systems", "generators")}
    records: list[dict[str, Any]] = []
    metrics: dict[str, dict[str, Any]] = {}
    for row in values["figures"]:
        of_spaces = row["group"] == "distances"
        name, argument = _split_name(row["name"], values["spaces"] if of_spaces else values["conditions"])
        place = {"space": argument or PRIMARY_SPACE} if of_spaces else {"condition": argument}
        metrics[name] = {
            "name": name,
            "display_name": _display_name(name),
            **{key: row[key] for key in ("group", "direction", "description")},
        }
        records += [
            {"metric": name, "system": system, **value, **place}
            for system, value in row["values"].items()
            if value is not None
        ]
    systems = Systems.of(values["systems"], values["generators"])
    return {
        **kept,
        "format_version": 3,
        "systems": [{"name": s.name, "kind": s.kind, "meaning": s.meaning} for s in systems],
        "records": records,
        "metrics": list(metrics.values()),
    }


def _from_3_to_4(values: Mapping[str, Any]) -> dict[str, Any]:
    """Keep the numbers and their bootstrap intervals: what real cells would score was not known then."""
    kept = {name: value for name, value in values.items() if name not in ("n_splits", "n_resamples")}
    return {
        **kept,
        "format_version": 4,
        "n_halvings": values["n_splits"],
        "n_permutations": 0,
        "multiplicity": [],
        "notes": [*values["notes"], OLD_INTERVALS.format(n_resamples=values["n_resamples"])],
    }


def _split_name(name: str, arguments: Iterable[str]) -> tuple[str, str | None]:
    """Find the space or condition that stands in brackets behind the name of a metric."""
    for argument in sorted(arguments, key=len, reverse=True):
        if name.endswith(f"[{argument}]"):
            return name.removesuffix(f"[{argument}]"), argument
    return name, None


def _display_name(name: str) -> str:
    """Give the name that a metric has today; words of its key for one that is no longer known."""
    known = {**METRICS, MMD2_PUBLISHED.info.name: MMD2_PUBLISHED}
    return known[name].info.display_name if name in known else in_words(name)


_STEPS = {2: _from_2_to_3, 3: _from_3_to_4}
