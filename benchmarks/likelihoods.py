"""Likelihoods side by side: of held-out cells, under the autoencoder that was trained with each of them.

    SCLDM_DATA=... python benchmarks/likelihoods.py pbmc_facs_zheng [--genes 2000] [--cells 100000] [--likelihoods ...]

One split, one seed and the default settings for all. The negative log-likelihoods are of whole cells, each at a draw
from its posterior and its own library size, and compare between likelihoods: all are of the same counts.
"""

from __future__ import annotations

import argparse
import dataclasses

import torch
from held_out import split_dataset, train_and_measure

from scldm.config import RunConfig, VAEConfig
from scldm.vae.counts.registry import LIKELIHOODS
from scldm.vae.model import VAE
from scldm.vae.objective import VAEObjective


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", nargs="?", default="pbmc_facs_zheng")
    parser.add_argument("--genes", type=int, default=None, help="the most expressed ones; all by default")
    parser.add_argument("--cells", type=int, default=RunConfig().vae_training.cells, help="cells to train for")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0, help="of the first weights")
    parser.add_argument("--likelihoods", nargs="*", default=list(LIKELIHOODS), choices=list(LIKELIHOODS))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    split = split_dataset(arguments.dataset, arguments.genes)
    training = dataclasses.replace(RunConfig().vae_training, cells=arguments.cells)
    print(f"{arguments.dataset}: {split}, threads: {arguments.threads}")
    print("| likelihood | held-out NLL per cell | cells trained for | parameters | seconds |\n|---|---|---|---|---|")
    for name in arguments.likelihoods:
        torch.manual_seed(arguments.seed)
        vae = VAE(VAEConfig(likelihood=name), split.n_genes, 0, split.gene_totals)
        result = train_and_measure(VAEObjective(vae, None, len(split.fit)), split, training)
        print(
            f"| {name} | {result.test_nll:.2f} | {result.cells:,} | {result.n_parameters:,} | {result.seconds:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
