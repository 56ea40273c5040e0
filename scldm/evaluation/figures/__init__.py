"""The figures of merit, one file per group; importing them enters them in the registry."""

from scldm.evaluation.figures import depth, distances, genes, labels, memorisation

__all__ = ["depth", "distances", "genes", "labels", "memorisation"]
