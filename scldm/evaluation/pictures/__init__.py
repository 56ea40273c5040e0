"""Pictures of an evaluation: what a biologist would look at first."""

from scldm.evaluation.pictures.correlations import draw_correlations
from scldm.evaluation.pictures.depths import draw_depths
from scldm.evaluation.pictures.embedding import draw_embedding, place
from scldm.evaluation.pictures.genes import draw_genes
from scldm.evaluation.pictures.markers import MARKERS_PER_LABEL, draw_markers
from scldm.evaluation.pictures.memorisation import draw_memorisation
from scldm.evaluation.pictures.overview import draw
from scldm.evaluation.pictures.scene import Scene

__all__ = [
    "MARKERS_PER_LABEL",
    "Scene",
    "draw",
    "draw_correlations",
    "draw_depths",
    "draw_embedding",
    "draw_genes",
    "draw_markers",
    "draw_memorisation",
    "place",
]
