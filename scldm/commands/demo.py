"""``scldm demo``: the whole chain on embedded real cells."""

from __future__ import annotations

import dataclasses
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from scldm.config import DataConfig, RunConfig
from scldm.files import atomic_directory, check_directory_can_be_made, holds_only

__all__ = ["DEMO_CONFIG", "Demo"]

#: Every setting is the default, what the demo shows is what a user gets, but for one: the prior is trained on a quarter
#: of the cells, so that all is over in two minutes. configs/demo.yaml is this, written out.
DEMO_CONFIG = RunConfig(
    data=DataConfig(path="demo", conditions=("cell_type", "phase")),
    prior_training=dataclasses.replace(RunConfig().prior_training, cells=128_000),
)

FILES = {
    "model",
    "cells.h5ad",
    "held_out.h5ad",
    "train.h5ad",
    "metrics.json",
    "report.html",
    "figure.png",
}


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Train on the embedded real cells, sample, evaluate: a few minutes on two CPU cores."""

    output: Path = Path("scldm-demo")
    """Directory for the model, the cells, the metrics and a picture."""
    seed: int = 0
    """Seed of the split, the training and the sampling."""
    overwrite: bool = False
    """Replace what an earlier demo left."""

    def run(self) -> None:
        """Train on 70 % of the embedded cells, generate as many again, and judge them by the rest."""
        from scldm.benchmark import repeated
        from scldm.data.demo import load_demo
        from scldm.data.split import split_cells
        from scldm.data.writing import write_h5ad
        from scldm.evaluation import evaluate
        from scldm.evaluation.results import write_results
        from scldm.model import ScLDM
        from scldm.storage.directory import is_model

        is_ours = holds_only(FILES - {"model"}, {"model": is_model})
        check_directory_can_be_made(self.output, self.overwrite, what="a demo", is_ours=is_ours)
        config = dataclasses.replace(DEMO_CONFIG, seed=self.seed)
        cells = load_demo()
        conditions = list(DEMO_CONFIG.data.conditions)
        train_rows, held_out_rows = split_cells(
            cells.n_obs, fraction=0.3, seed=self.seed, stratify_by=cells.obs["cell_type"].to_numpy()
        )
        train, held_out = cells[train_rows].copy(), cells[held_out_rows].copy()
        _say(
            f"{train.n_obs} cells to train on, {held_out.n_obs} held out, {cells.n_vars} genes; conditions: "
            + ", ".join(conditions)
        )

        started = time.perf_counter()
        model = ScLDM(train, config=config)
        with tempfile.TemporaryDirectory(prefix="scldm-demo-") as work:
            summary = model.train(work)
        _say(
            f"trained in {time.perf_counter() - started:.0f} s: autoencoder {summary.vae['cells']:,} cells, "
            f"prior {summary.prior['cells']:,} cells"
        )
        # Attributes as frequent as in the held-out cells: what is judged is how cells with them look.
        asked = repeated(held_out.obs[conditions], train.n_obs, self.seed)
        generated = model.sample(conditions=asked, seed=self.seed)
        report = evaluate(held_out, generated, train=train, conditions=conditions, seed=self.seed)

        with atomic_directory(self.output, overwrite=True, is_ours=is_ours) as partial:
            model.save(partial / "model")
            write_h5ad(generated, partial / "cells.h5ad")
            write_h5ad(train, partial / "train.h5ad")
            write_h5ad(held_out, partial / "held_out.h5ad")
            write_results(report, partial, embedding="pca")
        print(report.table())
        print(f"\nwrote {', '.join(str(self.output / name) for name in sorted(FILES))}")
        request = "--n-cells 500 --condition cell_type='CD19+ B' --output b_cells.h5ad"
        print(f"next: scldm sample {self.output / 'model'} {request}")


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr)
