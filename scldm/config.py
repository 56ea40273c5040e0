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

from scldm.data.config import DataConfig
from scldm.errors import UserError, nearest_names, require
from scldm.prior.config import PriorConfig
from scldm.seeds import Seeding
from scldm.strict_yaml import read_yaml
from scldm.training.config import TrackingConfig, TrainingConfig
from scldm.vae.config import VAEConfig

__all__ = [
    "DataConfig",
    "PriorConfig",
    "RunConfig",
    "TrackingConfig",
    "TrainingConfig",
    "VAEConfig",
    "load_config",
]


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
    seeding: Seeding = "64-bit"
    """64-bit: no two chunks of a request, and no two steps of a run, share random numbers, however many there are.
    32-bit: as models of format 4 draw; these models keep it, and so give the cells that they gave."""
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
        require(abs(self.seed) < 10**30, "seed has too many digits; it must be below 2^63.")
        require(self.seed >= 0, f"seed is {self.seed}; it must not be negative.")
        require(self.seed < 2**63, f"seed is {self.seed}; it must be below 2^63.")
        attribute = self.vae.dispersion_by
        require(
            attribute is None or attribute in self.data.conditions,
            f"vae.dispersion_by is '{attribute}', which is not among data.conditions {list(self.data.conditions)}.",
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain dictionaries, lists, strings and numbers, in the order of the fields."""
        return _plain(dataclasses.asdict(self))

    def to_yaml(self) -> str:
        """Return the whole configuration as YAML that :func:`load_config` reads back unchanged."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False)

    def outcome(self) -> dict[str, Any]:
        """As :meth:`to_dict`, with only the settings that change what a training ends in."""
        return _outcome(self)

    @classmethod
    def from_dict(cls, values: Any) -> RunConfig:
        """Build from :meth:`to_dict`'s form; keys that are left out keep their defaults.

        Raises
        ------
        UserError
            For an unknown key, a wrong type or an impossible value; the message names the key by its full path.
        """
        return _from_plain(cls, values, path="")


#: Bytes of a configuration file.
LARGEST_FILE = 2**20


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
        if path.stat().st_size > LARGEST_FILE:
            raise UserError(
                f"'{path}' has {path.stat().st_size:,} bytes; a configuration has at most {LARGEST_FILE:,}."
            )
        values = read_yaml(path.read_text(encoding="utf-8-sig"))
    except UserError:
        raise
    except UnicodeDecodeError as error:
        raise UserError(f"'{path}' is not valid YAML: it is not a text file.") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise UserError(f"'{path}' is not valid YAML: {place}{error.problem}.") from error
    except yaml.YAMLError as error:
        problem = " ".join(str(error).split())
        raise UserError(f"'{path}' is not valid YAML: {problem}.") from error
    except (ValueError, RecursionError, OverflowError) as error:  # numbers that are none, structures without a bottom
        raise UserError(f"'{path}' is not valid YAML: {str(error)[:200] or type(error).__name__}.") from error
    try:
        return RunConfig.from_dict(values if values is not None else {})
    except UserError as error:
        raise UserError(f"In '{path}': {error}") from error


def _outcome(section: Any) -> dict[str, Any]:
    """Leave out the fields that their section marks as harmless."""
    found = {}
    for one in dataclasses.fields(section):
        if one.metadata.get("changes_outcome", True):
            value = getattr(section, one.name)
            found[one.name] = _outcome(value) if dataclasses.is_dataclass(value) else _plain(value)
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _from_plain(cls: type, values: Any, path: str) -> Any:
    require(
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
            require(
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
    if value is None:
        return "nothing"
    shown = repr(value) if not isinstance(value, int) or abs(value) < 10**30 else "of many digits"
    return f"{type(value).__name__} {shown[:200]}"


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
        require(isinstance(value, (list, tuple)), f"'{key}' must be a list, not {_kind(value)}.")
        if options[-1] is not Ellipsis:
            require(len(value) == len(options), f"'{key}' must have {len(options)} entries, not {len(value)}.")
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
    require(
        isinstance(value, hint) and not (hint in (int, float) and isinstance(value, bool)),
        f"'{key}' must be {'a' if hint is not int else 'an'} {hint.__name__}, not {_kind(value)}.",
    )
    return value
