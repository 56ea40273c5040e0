"""``scldm evaluate``: generated cells from any generator against held-out real ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, UseAppendAction, arg

from scldm.commands.options import flat
from scldm.files import atomic_directory, check_directory_can_be_made, holds_only

__all__ = ["Evaluate"]


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Judge generated cells, from any generator, against held-out real cells."""

    real: Annotated[Positional[Path], arg(metavar="REAL")]
    """Real .h5ad, held out from training."""
    generated: Annotated[Positional[Path], arg(metavar="GENERATED")]
    """Generated .h5ad."""
    output: Path
    """Directory for metrics.json, report.html and figure.png."""
    train: Path | None = None
    """The training cells: fits spaces and classifiers, and shows what a memoriser would score."""
    condition: Annotated[tuple[tuple[str, ...], ...], UseAppendAction, arg(metavar="COLUMN ...")] = ()
    """Obs columns with labels."""
    layer: str | None = None
    """Layer that holds the counts of the real cells; by default X."""
    model: Path | None = None
    """Model directory whose latent space is one more space to measure distances in."""
    profile: Literal["standard", "published"] = "standard"
    """published: only the metrics of Palla et al. 2025, computed as there, to be set beside its tables."""
    embedding: Literal["umap", "pca"] = "umap"
    """Picture of the cells in report.html; pca takes no time."""
    seed: int = 0
    """Seed of everything that is drawn."""
    max_cells: int = 5000
    """Most cells per side."""
    group_by: str | None = None
    """Obs column of groups of real cells, such as donors: the ceiling is then cells of other groups."""
    halvings: int = 20
    """Halvings of the real cells to average over."""
    permutations: int = 99
    """Permutations that say what real cells would score, at least 39."""
    overwrite: bool = False
    """Replace earlier results."""

    def run(self) -> None:
        """Print the table and write the files."""
        from scldm.data.h5ad import read_h5ad
        from scldm.evaluation import evaluate
        from scldm.evaluation.results import RESULT_FILES, write_results
        from scldm.model import ScLDM

        conditions = flat("--condition", self.condition)
        check_directory_can_be_made(self.output, self.overwrite, what="an evaluation", is_ours=holds_only(RESULT_FILES))
        report = evaluate(
            read_h5ad(self.real),
            read_h5ad(self.generated),
            train=None if self.train is None else read_h5ad(self.train),
            conditions=conditions,
            layer=self.layer,
            model=None if self.model is None else ScLDM.load(self.model),
            profile=self.profile,
            seed=self.seed,
            max_cells=self.max_cells,
            n_halvings=self.halvings,
            n_permutations=self.permutations,
            group_by=self.group_by,
        )
        with atomic_directory(self.output, overwrite=True, is_ours=holds_only(RESULT_FILES)) as partial:
            write_results(report, partial, self.embedding)
        print(report.table())
        print(f"\nwrote {', '.join(str(self.output / name) for name in sorted(RESULT_FILES))}")
