"""``scldm benchmark``: hold cells out, train on the rest, and judge ours beside every baseline."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, UseAppendAction, arg

from scldm.commands.options import flat

__all__ = ["Benchmark"]


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """Hold cells out, train on the rest, and judge scldm beside every baseline, all in one run."""

    data: Annotated[Positional[Path], arg(metavar="DATA")]
    """The .h5ad with UMI counts."""
    output: Path
    """Directory for the model, the cells, the report and the tables."""
    condition: Annotated[tuple[tuple[str, ...], ...], UseAppendAction, arg(metavar="COLUMN ...")] = ()
    """Categorical obs columns to train on and to judge; the first stratifies the split. By default from --config."""
    continuous: Annotated[tuple[tuple[str, ...], ...], UseAppendAction, arg(metavar="COLUMN ...")] = ()
    """Continuous obs columns to train on."""
    group_by: str | None = None
    """Obs column (for instance donor) whose groups are never split between training, validation and held-out cells."""
    layer: str | None = None
    """Layer that holds the counts; by default X."""
    fraction: float = 0.3
    """Share of the cells to hold out."""
    config: Path | None = None
    """Configuration that says how to train; by default all defaults."""
    scvi: Literal["auto", "yes", "no"] = "auto"
    """Whether scVI is one of the baselines; auto: if scvi-tools is installed."""
    seed: int | None = None
    """Seed of the split, the training, the sampling and the judging; by default that of the configuration."""
    max_cells: int = 5000
    """Most cells per side of a comparison."""
    embedding: Literal["umap", "pca"] = "umap"
    """Picture of the cells in report.html; pca takes no time."""
    device: Literal["auto", "cpu"] = "auto"
    """cpu: leave a GPU alone."""
    overwrite: bool = False
    """Replace an earlier benchmark, or an unfinished one of another configuration."""

    def run(self) -> None:
        """Run the benchmark, print its table and say what it wrote."""
        from scldm.benchmark import FILES, benchmark
        from scldm.config import load_config

        options = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        config, device = options.pop("config"), options.pop("device")
        report = benchmark(
            options.pop("data"),
            options.pop("output"),
            conditions=flat("--condition", options.pop("condition")),
            continuous=flat("--continuous", options.pop("continuous")),
            config=None if config is None else load_config(config),
            cpu=device == "cpu",
            **options,
        )
        print(report.table())
        print(f"\nwrote {', '.join(str(self.output / name) for name in sorted(FILES))}")
