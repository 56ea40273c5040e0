"""Figures of an evaluation: what a biologist would look at first."""
