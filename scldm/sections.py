"""What the sections of a configuration share."""

from __future__ import annotations

__all__ = ["HARMLESS"]

HARMLESS = {"changes_outcome": False}
"""Metadata of a field that changes how a training runs but not what it ends in: another value of it is no obstacle to
continuing a training that was stopped."""
