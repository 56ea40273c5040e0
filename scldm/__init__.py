"""scldm: a latent diffusion model that generates single-cell gene expression counts."""

from importlib.metadata import version

__version__ = version("scldm")

from scldm.config import RunConfig, load_config
from scldm.data.demo import load_demo
from scldm.errors import UserError
from scldm.evaluation import evaluate
from scldm.model import ScLDM
from scldm.prior.guidance import Guidance

__all__ = ["Guidance", "RunConfig", "ScLDM", "UserError", "__version__", "evaluate", "load_config", "load_demo"]
