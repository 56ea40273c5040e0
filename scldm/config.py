"""Configuration: frozen dataclasses, and their strict YAML form.

A run is described by one :class:`RunConfig`. YAML is its serialisation and nothing more: an unknown key, a wrong type
or an impossible value is an error that names the key. Lengths of training are in cells, batch sizes are global.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import yaml

from scldm.errors import UserError, nearest_names

__all__ = [
    "DataConfig",
    "PriorConfig",
    "RunConfig",
    "TrackingConfig",
    "TrainingConfig",
    "VAEConfig",
    "load_config",
    "save_config",
]


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise UserError(message)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which cells to learn from, and which obs columns describe them."""

    path: str | None = None
    """An .h5ad file with UMI counts, or `demo` for the embedded data. None when an AnnData is passed from Python."""
    layer: str | None = None
    """Layer that holds the counts; None reads X."""
    conditions: tuple[str, ...] = ()
    """Categorical obs columns to condition on."""
    continuous: tuple[str, ...] = ()
    """Continuous obs columns to condition on."""
    missing_labels: Literal["error", "unlabelled"] = "error"
    """What a missing label means: refuse the file, or train the cell without that attribute."""
    min_cells_per_gene: int = 3
    """Genes expressed in fewer cells are left out of the model."""
    validation_fraction: float = 0.1
    """Share of the cells kept out of training to decide when to stop."""
    group_by: str | None = None
    """Obs column (for instance donor) whose groups are never split between training and validation."""
    backed: bool = False
    """Read cells from disk on demand instead of loading the matrix into memory."""
    unpack: bool = True
    """With `backed`: unpack the counts once into the working directory of the run (from Python without one: a temporary
    directory), six bytes for every positive count, so that random cells are read without decompressing their
    neighbours. False reads the file itself in every step."""

    def __post_init__(self) -> None:
        _require(
            self.min_cells_per_gene >= 1,
            f"data.min_cells_per_gene is {self.min_cells_per_gene}; it must be at least 1.",
        )
        _require(
            0 < self.validation_fraction < 1,
            f"data.validation_fraction is {self.validation_fraction}; it must be above 0 and below 1.",
        )


@dataclass(frozen=True, kw_only=True)
class VAEConfig:
    """The autoencoder that turns a cell into latent tokens and back into counts."""

    layout: Literal["wide", "published"] = "wide"
    """wide: capacity in per-gene tables. published: the layout of Palla et al. 2025."""
    n_latents: int = 8
    """Latent tokens per cell."""
    latent_channels: int = 8
    """Channels per latent token."""
    width: int = 64
    """Channels of a token inside the self-attention blocks (and of the gene embedding in the published layout)."""
    n_layers: int = 1
    """Self-attention blocks in the encoder, and as many in the decoder."""
    n_heads: int = 4
    """Heads of a self-attention block."""
    n_cross_heads: int = 4
    """Heads of the cross-attention that pools genes and un-pools latents."""
    table_width: int = 256
    """Channels of the per-gene tables (wide layout only)."""
    gene_tokens: Literal["film", "log1p", "projconcat"] = "film"
    """How a count enters its gene's token (published layout only); film alone lets the latent see count magnitudes."""
    mask_padding: bool = True
    """Keep padding out of the attention (published layout only); False reproduces the published implementation."""
    bottleneck: Literal["gaussian", "layernorm"] = "gaussian"
    """gaussian: a posterior q(Z|x) with a KL term. layernorm: the published deterministic bottleneck."""
    kl_weight: float = 0.01
    """Weight of the KL term, per nat."""
    dropout: float = 0.1
    """Dropout on the pooled cell representation (wide layout only)."""
    attribute_dropout: float = 0.15
    """Share of training cells of which the encoder is not told an attribute (wide layout only); 1 hides them all."""
    read_out_std: float = 0.011
    """Standard deviation of the Gaussian prior on the weights with which a gene is read out (wide layout only)."""
    likelihood: Literal["negative_binomial", "poisson"] = "negative_binomial"
    """Distribution of the counts."""
    dispersion_by: str | None = None
    """Categorical attribute that the inverse dispersion may depend on, besides the gene."""

    def __post_init__(self) -> None:
        for name in ("n_latents", "latent_channels", "width", "n_heads", "n_cross_heads", "table_width"):
            _require(getattr(self, name) >= 1, f"vae.{name} is {getattr(self, name)}; it must be at least 1.")
        _require(self.n_layers >= 0, f"vae.n_layers is {self.n_layers}; it must not be negative.")
        _require(
            self.width % self.n_heads == 0,
            f"vae.width is {self.width}; it must be a multiple of vae.n_heads ({self.n_heads}).",
        )
        cross = self.n_latents * self.n_cross_heads if self.layout == "wide" else self.n_cross_heads
        channels = self.table_width if self.layout == "wide" else self.width
        name, unit = (
            ("table_width", "n_latents * n_cross_heads") if self.layout == "wide" else ("width", "n_cross_heads")
        )
        _require(channels % cross == 0, f"vae.{name} is {channels}; it must be a multiple of vae.{unit} ({cross}).")
        _require(self.kl_weight >= 0, f"vae.kl_weight is {self.kl_weight}; it must not be negative.")
        _require(
            0 <= self.attribute_dropout <= 1,
            f"vae.attribute_dropout is {self.attribute_dropout}; it must be between 0 and 1.",
        )
        _require(self.read_out_std > 0, f"vae.read_out_std is {self.read_out_std}; it must be positive.")
        _require(0 <= self.dropout < 1, f"vae.dropout is {self.dropout}; it must be at least 0 and below 1.")
        # A setting without effect is a misunderstanding.
        _require(
            self.layout == "published" or (self.gene_tokens == "film" and self.mask_padding),
            "vae.gene_tokens and vae.mask_padding belong to the published layout; set vae.layout to published.",
        )
        _require(
            self.dispersion_by is None or self.likelihood != "poisson",
            "vae.dispersion_by has no effect on Poisson counts; set vae.likelihood to negative_binomial.",
        )


@dataclass(frozen=True, kw_only=True)
class PriorConfig:
    """The diffusion transformer that generates latents and depth."""

    width: int = 128
    """Channels of a token."""
    n_layers: int = 4
    """Transformer blocks."""
    n_heads: int = 4
    """Attention heads."""
    dropout: float = 0.0
    """Dropout inside the blocks."""
    attribute_dropout: float = 0.15
    """Probability, for each attribute by itself, of being hidden from a training cell."""
    given_depth_fraction: float = 0.25
    """Share of training cells whose depth is given instead of generated, so that a request may fix it."""
    time_distribution: Literal["uniform", "logit_normal"] = "uniform"
    """How training times are drawn."""
    time_scale: float = 1000.0
    """Factor on time before its sinusoidal features; 1 reproduces the published implementation."""
    few_step_evaluations: tuple[int, ...] = (4,)
    """Numbers of network evaluations for which a few-step solver is fitted after training; none with an empty list."""

    def __post_init__(self) -> None:
        for name in ("width", "n_layers", "n_heads"):
            _require(getattr(self, name) >= 1, f"prior.{name} is {getattr(self, name)}; it must be at least 1.")
        _require(
            self.width % self.n_heads == 0 and self.width % 2 == 0,
            f"prior.width is {self.width}; it must be even and a multiple of prior.n_heads ({self.n_heads}).",
        )
        for name in ("dropout", "attribute_dropout", "given_depth_fraction"):
            value = getattr(self, name)
            _require(0 <= value < 1, f"prior.{name} is {value}; it must be at least 0 and below 1.")
        _require(
            all(n >= 1 for n in self.few_step_evaluations)
            and len(set(self.few_step_evaluations)) == len(self.few_step_evaluations),
            f"prior.few_step_evaluations is {list(self.few_step_evaluations)}; they must be at least 1, and differ.",
        )
        _require(self.time_scale > 0, f"prior.time_scale is {self.time_scale}; it must be positive.")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How one of the two stages is optimised. Lengths count cells, so they do not depend on batch size or processes."""

    cells: int = 256_000
    """Cells to train on at most, repeats counted."""
    batch_size: int = 128
    """Cells per step of the optimiser, over all processes and accumulated batches."""
    gradient_accumulation: int = 1
    """Batches that one step of the optimiser is split into, to save memory."""
    learning_rate: float = 2e-3
    """Peak learning rate of AdamW."""
    warmup_cells: int = 12_800
    """Cells over which the learning rate rises to its peak."""
    decay: Literal["cosine", "constant"] = "cosine"
    """Learning rate after the warm-up: cosine to zero at `cells`, or constant."""
    weight_decay: float = 0.01
    """Decoupled weight decay."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's betas."""
    clip_norm: float = 10.0
    """Gradients are scaled down to this norm."""
    ema_decay: float = 0.99
    """Decay per step of the average of the weights, which is what is validated, saved and sampled."""
    compile: bool = False
    """Compile the network with torch.compile."""
    validate_every: int = 6_400
    """Cells between two validations."""
    patience: float = 0.5
    """The stage stops when validation has not improved for this multiple of the cells that led to its best value; 0
    never stops early."""
    keep: Literal["best", "last"] = "best"
    """Averaged weights that are kept: those of the best validation, or the last ones."""
    checkpoint_every: int = 64_000
    """Cells between two checkpoints from which a killed run resumes."""
    data_workers: int = 0
    """Worker processes that prepare batches; 0 prepares them in the training process."""

    def __post_init__(self) -> None:
        for name in ("cells", "batch_size", "gradient_accumulation", "validate_every", "checkpoint_every"):
            _require(getattr(self, name) >= 1, f"{name} is {getattr(self, name)}; it must be at least 1.")
        for name in ("warmup_cells", "weight_decay", "patience", "data_workers"):
            _require(getattr(self, name) >= 0, f"{name} is {getattr(self, name)}; it must not be negative.")
        _require(0 <= self.ema_decay < 1, f"ema_decay is {self.ema_decay}; it must be at least 0 and below 1.")
        _require(
            all(0 <= b < 1 for b in self.betas), f"betas are {list(self.betas)}; both must be at least 0 and below 1."
        )
        _require(self.learning_rate > 0, f"learning_rate is {self.learning_rate}; it must be positive.")
        _require(self.clip_norm > 0, f"clip_norm is {self.clip_norm}; it must be positive.")
        _require(
            self.batch_size % self.gradient_accumulation == 0,
            f"batch_size is {self.batch_size}; it must be a multiple of gradient_accumulation "
            f"({self.gradient_accumulation}).",
        )


@dataclass(frozen=True, kw_only=True)
class TrackingConfig:
    """Where training metrics go besides metrics.jsonl, which is always written."""

    wandb: bool = False
    """Log to Weights & Biases (needs `pip install scldm[wandb]`); WANDB_MODE=offline works."""
    project: str = "scldm"
    """Name of the wandb project."""
    name: str | None = None
    """Name of the wandb run."""


def _vae_training() -> TrainingConfig:
    # The likelihood of held-out cells is best while the decoder still shrinks rates towards their mean; cells generated
    # from there are too much alike, and those from long after it copy the noise of training cells (measured:
    # benchmarks/RESULTS.md). So the autoencoder trains on past that point for as long as `patience` says, and keeps
    # where it ends.
    return TrainingConfig(learning_rate=4e-3, patience=1.0, keep="last")


def _prior_training() -> TrainingConfig:
    return TrainingConfig(
        cells=512_000,
        batch_size=256,
        learning_rate=1e-3,
        weight_decay=0.0,
        clip_norm=1.0,
        ema_decay=0.999,
    )


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that determines a model, besides the data itself."""

    seed: int = 0
    """All randomness of a run comes from this number."""
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """auto: bf16 autocast on GPUs that have it, float32 elsewhere. Likelihoods are always float32."""
    data: DataConfig = field(default_factory=DataConfig)
    """Cells and attributes."""
    vae: VAEConfig = field(default_factory=VAEConfig)
    """First stage: the autoencoder."""
    prior: PriorConfig = field(default_factory=PriorConfig)
    """Second stage: the diffusion transformer."""
    vae_training: TrainingConfig = field(default_factory=_vae_training)
    """Optimisation of the first stage."""
    prior_training: TrainingConfig = field(default_factory=_prior_training)
    """Optimisation of the second stage."""
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    """Experiment tracking."""

    def __post_init__(self) -> None:
        _require(self.seed >= 0, f"seed is {self.seed}; it must not be negative.")
        _require(self.seed < 2**63, f"seed is {self.seed}; it must be below 2^63.")
        attribute = self.vae.dispersion_by
        _require(
            attribute is None or attribute in self.data.conditions,
            f"vae.dispersion_by is '{attribute}', which is not among data.conditions {list(self.data.conditions)}.",
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionaries, lists, strings and numbers, in the order of the fields."""
        return _plain(dataclasses.asdict(self))

    @classmethod
    def from_dict(cls, values: Any) -> RunConfig:
        """Build from :meth:`to_dict`'s form; keys that are left out keep their defaults.

        Raises
        ------
        UserError
            For an unknown key, a wrong type or an impossible value; the message names the key by its full path.
        """
        return _from_plain(cls, values, path="")


def load_config(path: str | Path) -> RunConfig:
    """Read a :class:`RunConfig` from a YAML file.

    Raises
    ------
    UserError
        If the file is missing, is not YAML, or does not describe a run.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f"'{path}' is a directory, not a configuration file.")
    if not path.is_file():
        raise UserError(f"There is no configuration file at '{path}'.")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise UserError(f"'{path}' is not valid YAML: it is not a text file.") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise UserError(f"'{path}' is not valid YAML: {place}{error.problem}.") from error
    except yaml.YAMLError as error:
        problem = " ".join(str(error).split())
        raise UserError(f"'{path}' is not valid YAML: {problem}.") from error
    try:
        return RunConfig.from_dict(values if values is not None else {})
    except UserError as error:
        raise UserError(f"In '{path}': {error}") from error


def save_config(config: RunConfig, path: str | Path) -> None:
    """Write ``config`` in full as YAML that :func:`load_config` reads back unchanged."""
    Path(path).write_text(yaml.safe_dump(config.to_dict(), sort_keys=False), encoding="utf-8")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _from_plain(cls: type, values: Any, path: str) -> Any:
    _require(
        isinstance(values, dict),
        f"{path or 'The configuration'} must be a mapping of keys to values, not {_kind(values)}.",
    )
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    prefix = f"{path}." if path else ""
    arguments = {}
    for key, value in values.items():
        if key not in fields:
            raise UserError(f"Unknown key '{prefix}{key}'; {nearest_names(key, fields)}")
        if dataclasses.is_dataclass(hints[key]):
            # A section starts from the run's own default (the two stages differ), then takes the given keys.
            default = cast(Callable[[], Any], fields[key].default_factory)()
            _require(
                isinstance(value, dict), f"'{prefix}{key}' must be a mapping of keys to values, not {_kind(value)}."
            )
            value = _from_plain(hints[key], _plain(dataclasses.asdict(default)) | value, f"{prefix}{key}")
        else:
            value = _typed(hints[key], value, f"{prefix}{key}")
        arguments[key] = value
    try:
        return cls(**arguments)
    except UserError as error:
        section = f"{path}." if path.endswith("training") and not str(error).startswith(path) else ""
        raise UserError(f"{section}{error}") from None


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"{type(value).__name__} {value!r}"


def _typed(hint: Any, value: Any, key: str) -> Any:
    """Check a YAML value against a field's type; numbers are not taken from strings, nor flags from numbers."""
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        if value not in options:
            raise UserError(f"'{key}' is {value!r}; {nearest_names(value, options)}")
        return value
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in options:
            return None
        return _typed(next(o for o in options if o is not type(None)), value, key)
    if origin is tuple:
        _require(isinstance(value, (list, tuple)), f"'{key}' must be a list, not {_kind(value)}.")
        if options[-1] is not Ellipsis:
            _require(len(value) == len(options), f"'{key}' must have {len(options)} entries, not {len(value)}.")
        return tuple(_typed(options[0], item, key) for item in value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is float and isinstance(value, str):
        # YAML 1.1 reads 1e-3 (no dot) as a string; a person means the number.
        try:
            return float(value)
        except ValueError:
            pass
    if hint is int and isinstance(value, float) and value.is_integer():
        return int(value)
    _require(
        isinstance(value, hint) and not (hint in (int, float) and isinstance(value, bool)),
        f"'{key}' must be {'a' if hint is not int else 'an'} {hint.__name__}, not {_kind(value)}.",
    )
    return value
