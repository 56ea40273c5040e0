"""scldm: a latent diffusion model that generates single-cell gene expression counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scldm.lazy import lazy_names

if TYPE_CHECKING:
    from scldm.config import RunConfig, load_config
    from scldm.data.demo import load_demo
    from scldm.errors import UserError
    from scldm.evaluation import evaluate
    from scldm.generation.request import GenerationRequest
    from scldm.model import ScLDM
    from scldm.prior.guidance import Guidance
    from scldm.trained import TrainedModel
    from scldm.version import __version__

__all__ = [
    "GenerationRequest",
    "Guidance",
    "RunConfig",
    "ScLDM",
    "TrainedModel",
    "UserError",
    "__version__",
    "evaluate",
    "load_config",
    "load_demo",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "GenerationRequest": "scldm.generation.request",
        "Guidance": "scldm.prior.guidance",
        "RunConfig": "scldm.config",
        "ScLDM": "scldm.model",
        "TrainedModel": "scldm.trained",
        "UserError": "scldm.errors",
        "__version__": "scldm.version",
        "evaluate": "scldm.evaluation",
        "load_config": "scldm.config",
        "load_demo": "scldm.data.demo",
    },
)
