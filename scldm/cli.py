"""The command line: parse, call the library, print.

Each command is a frozen dataclass whose fields are its arguments and whose ``run`` does the work.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import FlagCreatePairsOff, Positional, Suppress, UseAppendAction, arg

from scldm.config import RunConfig, load_config
from scldm.errors import UserError

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
    --vae.n-latents 16`. Several GPUs: `accelerate launch -m scldm train CONFIG.yaml`. Several CPU processes: `torchrun
    --nproc_per_node 2 -m scldm train CONFIG.yaml`.
    """

    config: Annotated[RunConfig, arg(name="")]
    """The configuration after all overrides."""
    config_file: Annotated[Path, Suppress]
    """Where it came from."""
    output: Path | None = None
    """Model directory to make; by default checkpoints/NAME for NAME.yaml."""
    overwrite: bool = False
    """Replace an existing model directory."""
    dry_run: bool = False
    """Check everything, print the configuration and the sizes, and stop before training."""
    device: Literal["auto", "cpu"] = "auto"
    """cpu: leave a GPU alone."""

    def run(self) -> None:
        """Run the command."""
        from scldm.commands.train import describe_run, train

        output = self.output or Path("checkpoints") / self.config_file.stem
        if self.dry_run:
            print(describe_run(self.config, output, overwrite=self.overwrite))
        else:
            train(self.config, output, overwrite=self.overwrite, cpu=self.device == "cpu")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Generate cells into an .h5ad."""

    model_dir: Positional[Path]
    """Model directory."""
    output: Path
    """The .h5ad to write."""
    n_cells: int | None = None
    """Number of cells; with --like, the number of its cells by default."""
    condition: Annotated[tuple[tuple[str, ...], ...], UseAppendAction, arg(metavar="NAME=VALUE ...")] = ()
    """Attributes and their values, for instance cell_type="B cell" phase=G1."""
    guidance: Annotated[tuple[str, ...], arg(metavar="SCALE | NAME=SCALE ...")] = ("1.0",)
    """One number (guides by all conditions jointly; 1 is plain conditional generation, 0 ignores them), or one for each
    attribute, for instance cell_type=2.0 phase=1.5."""
    guidance_mode: Literal["joint", "additive"] | None = None
    """How guidance combines attributes; by default joint for one number, additive for one per attribute."""
    like: Path | None = None
    """Real .h5ad whose attributes are reproduced, row by row."""
    depth: str | None = None
    """Library size in UMI: a number, or `like` to take each cell's from --like; by default the model generates it."""
    genes: Path | None = None
    """File with one gene name per line; only these are written, in this order."""
    solver: str = "heun"
    """euler, midpoint, heun, or the adaptive dopri5."""
    steps: int = 25
    """Steps of the solver."""
    seed: int = 0
    """The same request with the same seed gives the same cells."""
    batch_size: int = 512
    """Cells generated at a time; it does not change the cells."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute."""
    overwrite: bool = False
    """Replace an existing file."""

    def run(self) -> None:
        """Run the command."""
        from scldm.commands.sample import sample

        options = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        conditions = [pair for group in options.pop("condition") for pair in group]
        sample(options.pop("model_dir"), options.pop("output"), conditions=conditions, **options)


@dataclass(frozen=True, kw_only=True)
class Encode:
    """Write latent representations of real cells to obsm["X_scldm"]."""

    model_dir: Positional[Path]
    """Model directory."""
    data: Positional[Path]
    """The .h5ad with UMI counts; genes are aligned by name."""
    output: Path
    """The .h5ad to write: the obs of the data, and the latents."""
    layer: str | None = None
    """Layer that holds the counts; by default X."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
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

    real: Positional[Path]
    """Real .h5ad, held out from training."""
    generated: Positional[Path]
    """Generated .h5ad."""
    output: Path
    """Directory for metrics.json and figure.png."""
    train: Path | None = None
    """The training cells: fits spaces and classifiers, and shows what a memoriser would score."""
    condition: Annotated[tuple[tuple[str, ...], ...], UseAppendAction, arg(metavar="COLUMN ...")] = ()
    """Obs columns with labels."""
    layer: str | None = None
    """Layer that holds the counts of the real cells; by default X."""
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
        conditions = [name for group in options.pop("condition") for name in group]
        evaluate(options.pop("real"), options.pop("generated"), options.pop("output"), conditions=conditions, **options)


@dataclass(frozen=True, kw_only=True)
class Info:
    """Tell what a model was trained on and what it can be asked for."""

    model_dir: Positional[Path]
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
    # A warning is a message to the user here, not a line of our source.
    warnings.showwarning = lambda message, category, *_: print(f"scldm: warning: {message}", file=sys.stderr)
    try:
        with _one_sentence_errors():
            command = _parse(arguments)
        command.run()
    except UserError as error:
        _fail(str(error))
    except BrokenPipeError:
        # The reader (head, less) has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print("scldm: interrupted.", file=sys.stderr)
        sys.exit(130)


def _fail(message: str) -> None:
    sentence = " ".join(message.split())
    print(f"scldm: error: {sentence[:1].upper()}{sentence[1:]}", file=sys.stderr)
    sys.exit(2)


def _parse(arguments: list[str]) -> Any:
    if not arguments or arguments[0] in ("-h", "--help"):
        width = max(map(len, COMMANDS))
        listing = "\n".join(f"  {name:{width}}  {_summary(kind)}" for name, kind in COMMANDS.items())
        print(USAGE.format(commands=listing))
        sys.exit(0 if arguments else 2)
    name, rest = arguments[0], arguments[1:]
    if name == "--version":
        from scldm import __version__

        print(f"scldm {__version__}")
        sys.exit(0)
    if name not in COMMANDS:
        from scldm.errors import nearest_names

        raise UserError(f"there is no command '{name}'; {nearest_names(name, COMMANDS)}")
    prog = f"scldm {name}"
    if name == "train":
        return _parse_train(rest, prog)
    return tyro.cli(COMMANDS[name], args=rest, prog=prog, config=(FlagCreatePairsOff,))


def _summary(kind: type[Any]) -> str:
    return str(kind.__doc__).strip().splitlines()[0].split(";")[0].rstrip(".")


def _parse_train(arguments: list[str], prog: str) -> Train:
    """The file is read first, so that its values are the defaults of the options behind it."""
    if arguments and not arguments[0].startswith("-"):
        path, arguments = Path(arguments[0]), arguments[1:]
        config = load_config(path)
    elif "-h" in arguments or "--help" in arguments:
        path, config = Path("CONFIG.yaml"), RunConfig()
        prog += " CONFIG.yaml"
    else:
        raise UserError("train needs a configuration file first: scldm train CONFIG.yaml [--output DIR] [...]")
    return tyro.cli(
        Train, args=arguments, prog=prog, default=Train(config=config, config_file=path), config=(FlagCreatePairsOff,)
    )


@contextlib.contextmanager
def _one_sentence_errors() -> Iterator[None]:
    """Turn the box that the parser draws around an error into one sentence."""
    captured = io.StringIO()
    try:
        with contextlib.redirect_stderr(captured):
            yield
    except SystemExit as stop:
        text = captured.getvalue()
        if stop.code in (0, None) or not text:
            sys.stderr.write(text)
            raise
        lines = [re.sub(r"[╭╮╰╯│─]", " ", line).strip() for line in text.splitlines()]
        # The box's title and its own words; the repeated help text behind the first rule is left to --help.
        sentences: list[str] = []
        for raw, line in zip(text.splitlines()[1:], lines[1:], strict=False):
            if "───" in raw:
                break
            sentences.append(line)
        sentence = " ".join(filter(None, sentences)) or " ".join(filter(None, lines))
        # An optional number that is none: the parser lists everything it tried.
        sentence = re.sub(
            r"no type matching \{None\}\|(\w+) could .* from \[(.*?)\]\. Got errors.*", r"\2 is not a \1", sentence
        )
        raise UserError(sentence) from None


if __name__ == "__main__":
    main()
