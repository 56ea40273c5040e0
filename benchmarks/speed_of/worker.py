"""The process that makes one measurement: which function it calls, and how it answers."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from scldm.nn import attention
from speed_of.growth import (
    measure_growth_with_attributes,
    measure_growth_with_cells,
    measure_growth_with_expressed,
    measure_growth_with_steps,
)
from speed_of.job import OURS, PRIORS, Job, Settings
from speed_of.meters import Memory
from speed_of.ours import (
    measure_our_encoding,
    measure_our_latents,
    measure_our_prior_training,
    measure_our_sampling,
    measure_our_vae_training,
    prepare_our_model,
)
from speed_of.published import (
    measure_published_encoding,
    measure_published_prior_training,
    measure_published_sampling,
    measure_published_vae_training,
    prepare_published_prior,
)
from speed_of.reading import measure_data
from speed_of.scvi import measure_scvi_encoding, measure_scvi_sampling, measure_scvi_training

WORKERS: dict[tuple[str, str], Callable[[Settings, Job, Memory], dict[str, Any]]] = {
    ("prepare", "scldm"): prepare_our_model,
    ("prepare", "published"): prepare_published_prior,
    ("vae", "scldm"): measure_our_vae_training,
    ("vae", "published"): measure_published_vae_training,
    ("vae", "scVI"): measure_scvi_training,
    ("encode", "scldm"): measure_our_encoding,
    ("encode", "published"): measure_published_encoding,
    ("encode", "scVI"): measure_scvi_encoding,
    **{("prior", system): measure_our_prior_training for system in PRIORS},
    ("prior", "published"): measure_published_prior_training,
    **{("sample", system): measure_our_sampling for system in OURS},
    **{("latents", system): measure_our_latents for system in OURS},
    ("sample", "published"): measure_published_sampling,
    ("sample", "scVI, posterior"): measure_scvi_sampling,
    ("sample", "scVI, prior"): measure_scvi_sampling,
    ("growth", "expressed genes"): measure_growth_with_expressed,
    ("growth", "cells"): measure_growth_with_cells,
    ("growth", "steps"): measure_growth_with_steps,
    ("growth", "network rows per cell (guided attributes + 1)"): measure_growth_with_attributes,
    ("data", "in memory"): measure_data,
    ("data", "backed, unpacked"): measure_data,
    ("data", "backed, as it is"): measure_data,
}


def worker(text: str) -> None:
    """Make one measurement and print it as one line of JSON."""
    message = json.loads(text)
    settings, job = Settings(**message["settings"]), Job(**message["job"])
    torch.set_num_threads(settings.threads)
    if job.system == "published":
        # The published code calls torch's fused attention everywhere; what we do on CPUs instead is ours.
        attention.FEW_TOKENS = 0
    # What libraries print must not mix with the answer.
    with _standard_output_elsewhere() as answer, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = WORKERS[job.measure, job.system](settings, job, Memory(settings))
        answer.write(json.dumps(result) + "\n")


@contextmanager
def _standard_output_elsewhere() -> Iterator[Any]:
    kept = sys.stdout
    sys.stdout = sys.stderr
    try:
        yield kept
    finally:
        sys.stdout = kept
