"""The command line: parse, call the library, print.

Each command is a frozen dataclass whose fields are its arguments and whose ``run`` does the work.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, Suppress, UseAppendAction, arg

from scldm.commands.parser import parse
from scldm.config import RunConfig, load_config
from scldm.errors import UserError, nearest_names

__all__ = ["main"]


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
        """Run the command."""
        from scldm.commands.demo import demo

        demo(self.output, seed=self.seed, overwrite=self.overwrite)


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train a model as a configuration says; run the same command again to continue a training that was stopped.

    Every field of the configuration can be set behind the file name, for instance `--data.path cells.h5ad
    --vae.n-latents 16`; without a file, the defaults apply and `--data.path` is all that is needed.
    Several GPUs: `accelerate launch -m scldm train CONFIG.yaml`. Several CPU processes: `torchrun --nproc_per_node 2 -m
    scldm train CONFIG.yaml`.
    """

    config: Annotated[RunConfig, arg(name="")]
    """The configuration after all overrides."""
    config_file: Annotated[Path | None, Suppress]
    """Where it came from, if from a file."""
    output: Path | None = None
    """Model directory to make; by default checkpoints/NAME for NAME.yaml, or for the data NAME.h5ad without a file."""
    overwrite: bool = False
    """Replace an existing model directory."""
    dry_run: bool = False
    """Check everything, print the configuration and the sizes, and stop before training."""
    device: Literal["auto", "cpu"] = "auto"
    """cpu: leave a GPU alone."""

    def run(self) -> None:
        """Run the command."""
        from scldm.commands.train import describe_run, train

        named_after = self.config_file or Path(str(self.config.data.path))
        output = self.output or Path("checkpoints") / named_after.stem
        if self.dry_run:
            print(describe_run(self.config, output, overwrite=self.overwrite))
        else:
            train(self.config, output, overwrite=self.overwrite, cpu=self.device == "cpu")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Generate cells into an .h5ad."""

    model_dir: Annotated[Positional[Path], arg(metavar="MODEL_DIR")]
    """Model directory."""
    output: Path
    """The .h5ad to write."""
    n_cells: int | None = None
    """Number of cells; with --like, the number of its cells by default."""
    condition: Annotated[tuple[tuple[str, ...], ...], UseAppendAction, arg(metavar="NAME=VALUE ...")] = ()
    """Attributes and their values, for instance cell_type="B cell" phase=G1."""
    guidance: Annotated[tuple[tuple[str, ...], ...], UseAppendAction, arg(metavar="SCALE | NAME=SCALE ...")] = ()
    """One number (guides by all conditions jointly; 1, the default, is plain conditional generation, 0 ignores them),
    or one for each attribute, for instance cell_type=2.0 phase=1.5."""
    guidance_mode: Literal["joint", "additive"] | None = None
    """How guidance combines attributes; by default joint for one number, additive for one per attribute."""
    like: Path | None = None
    """Real .h5ad whose attributes are reproduced, row by row."""
    depth: str | None = None
    """Library size in UMI: a number, or `like` to take each cell's from --like; by default the model generates it."""
    layer: str | None = None
    """With --depth like: layer of the --like file that holds the counts; by default X."""
    genes: Path | None = None
    """File with one gene name per line; only these are written, in this order."""
    solver: str = "heun"
    """few_step (fitted to the model, fastest), euler, midpoint, heun, or the adaptive dopri5."""
    steps: int | None = None
    """Steps of the solver; by default 25, of few_step 4. A step of few_step is one network evaluation, of heun two."""
    seed: int = 0
    """The same request with the same seed gives the same cells."""
    batch_size: int = 512
    """Cells generated at a time; it does not change the cells."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute."""
    part: Annotated[str | None, arg(metavar="K/N")] = None
    """Generate only part K of N: N jobs with the same request otherwise, side by side or one after the other, make the
    cells that one job would make."""
    overwrite: bool = False
    """Replace an existing file."""

    def run(self) -> None:
        """Run the command."""
        from scldm.commands.sample import sample

        options = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        conditions = _flat("--condition", options.pop("condition"))
        guidance = _flat("--guidance", options.pop("guidance")) or ("1.0",)
        sample(options.pop("model_dir"), options.pop("output"), conditions=conditions, guidance=guidance, **options)


@dataclass(frozen=True, kw_only=True)
class Encode:
    """Write latent representations of real cells to obsm["X_scldm"]."""

    model_dir: Annotated[Positional[Path], arg(metavar="MODEL_DIR")]
    """Model directory."""
    data: Annotated[Positional[Path], arg(metavar="DATA")]
    """The .h5ad with UMI counts; genes are aligned by name."""
    output: Path
    """The .h5ad to write: the obs of the data, and the latents."""
    layer: str | None = None
    """Layer that holds the counts; by default X."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute."""
    overwrite: bool = False
    """Replace an existing file."""

    def run(self) -> None:
        """Run the command."""
        from scldm.commands.encode import encode

        encode(self.model_dir, self.data, self.output, layer=self.layer, device=self.device, overwrite=self.overwrite)


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
    """published: only the figures of Palla et al. 2025, computed as there, to be set beside its tables."""
    embedding: Literal["umap", "pca"] = "umap"
    """Picture of the cells in report.html; pca takes no time."""
    seed: int = 0
    """Seed of the split and the subsampling."""
    max_cells: int = 5000
    """Most cells per side."""
    overwrite: bool = False
    """Replace earlier results."""

    def run(self) -> None:
        """Run the command."""
        from scldm.commands.evaluate import evaluate

        options = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        conditions = _flat("--condition", options.pop("condition"))
        evaluate(options.pop("real"), options.pop("generated"), options.pop("output"), conditions=conditions, **options)


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
        """Run the command."""
        from scldm.commands.benchmark import FILES, benchmark

        options = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        config, device = options.pop("config"), options.pop("device")
        report = benchmark(
            options.pop("data"),
            options.pop("output"),
            conditions=_flat("--condition", options.pop("condition")),
            continuous=_flat("--continuous", options.pop("continuous")),
            config=None if config is None else load_config(config),
            cpu=device == "cpu",
            **options,
        )
        print(report.table())
        print(f"\nwrote {', '.join(str(self.output / name) for name in sorted(FILES))}")


@dataclass(frozen=True, kw_only=True)
class Info:
    """Tell what a model was trained on and what it can be asked for."""

    model_dir: Annotated[Positional[Path], arg(metavar="MODEL_DIR")]
    """Model directory."""

    def run(self) -> None:
        """Run the command."""
        from scldm.model_directory import model_card, read_model

        print(model_card(read_model(self.model_dir)))


COMMANDS: dict[str, type[Any]] = {
    "demo": Demo,
    "train": Train,
    "sample": Sample,
    "encode": Encode,
    "evaluate": Evaluate,
    "benchmark": Benchmark,
    "info": Info,
}

USAGE = """usage: scldm COMMAND [OPTIONS]

A latent diffusion model that generates single-cell gene expression counts.

commands (scldm COMMAND --help tells more):
{commands}
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; exit status 2 and one sentence for anything the user can mend."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    with warnings.catch_warnings():
        # A warning is a message to the user here, not a line of our source, and one to developers is none.
        warnings.simplefilter("default", UserWarning)
        warnings.simplefilter("ignore", FutureWarning)
        warnings.showwarning = lambda message, *_: _warn(message)
        try:
            _parse(arguments).run()
        except UserError as error:
            _fail(error)
        except BrokenPipeError:
            # The reader (head, less) has seen enough.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except KeyboardInterrupt:
            print("scldm: interrupted.", file=sys.stderr)
            sys.exit(130)
        except OSError as error:
            # A full disk, a directory that may not be written: the operating system says what.
            _fail(f"'{error.filename}': {error.strerror}" if error.filename and error.strerror else error)
        except (MemoryError, RuntimeError) as error:
            if not isinstance(error, MemoryError) and not _is_out_of_memory(str(error)):
                raise
            _fail("there is not enough memory for this; ask for fewer cells or genes, or a smaller batch size")


def _warn(message: object) -> None:
    # Processes that work together would all say the same.
    if os.environ.get("RANK", "0") == "0":
        print(f"scldm: warning: {_sentence(message)}", file=sys.stderr)


def _fail(message: object) -> None:
    print(f"scldm: error: {_sentence(message)}", file=sys.stderr)
    sys.exit(2)


def _sentence(message: object) -> str:
    text = " ".join(str(message).split())
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?", "!")) else ".")


def _is_out_of_memory(message: str) -> bool:
    return "out of memory" in message or "can't allocate memory" in message


def _flat(option: str, groups: Sequence[Sequence[str]]) -> list[str]:
    """Values of an option that may be repeated and takes several each time."""
    if not all(groups):
        raise UserError(f"{option} needs a value")
    return [value for group in groups for value in group]


def _parse(arguments: list[str]) -> Any:
    if not arguments or arguments[0] in ("-h", "--help"):
        width = max(map(len, COMMANDS))
        listing = "\n".join(f"  {name:{width}}  {_summary(kind)}" for name, kind in COMMANDS.items())
        print(USAGE.format(commands=listing), file=sys.stdout if arguments else sys.stderr)
        sys.exit(0 if arguments else 2)
    name, rest = arguments[0], arguments[1:]
    if name == "--version":
        from scldm import __version__

        print(f"scldm {__version__}")
        sys.exit(0)
    if name not in COMMANDS:
        raise UserError(f"there is no command '{name}'; {nearest_names(name, COMMANDS)}")
    prog = f"scldm {name}"
    return _parse_train(rest, prog) if name == "train" else parse(COMMANDS[name], rest, prog=prog)


def _summary(kind: type[Any]) -> str:
    return str(kind.__doc__).strip().splitlines()[0].split(";")[0].rstrip(".")


def _parse_train(arguments: list[str], prog: str) -> Train:
    """Read the file first, so that its values are the defaults of the options behind it."""
    path: Path | None
    if arguments and not arguments[0].startswith("-"):
        path, arguments = Path(arguments[0]), arguments[1:]
        if path.suffix == ".h5ad":
            raise UserError(f"'{path}' is data, not a configuration; write scldm train --data.path {path}")
        config = load_config(path)
    elif "-h" in arguments or "--help" in arguments:
        path, config = Path("CONFIG.yaml"), RunConfig()
        prog += " CONFIG.yaml"
    elif any(word.split("=")[0] == "--data.path" for word in arguments):
        # Defaults for everything else; the run is called after its data.
        path, config = None, RunConfig()
    else:
        raise UserError(
            "train needs a configuration or data: scldm train CONFIG.yaml, or scldm train --data.path X.h5ad"
        )
    command: Train = parse(Train, arguments, prog=prog, default=Train(config=config, config_file=path))
    return command


if __name__ == "__main__":
    main()
