"""``scldm train``: from a configuration to a model directory, resumable."""

from __future__ import annotations

import contextlib
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Suppress, arg

from scldm.commands.parser import parse
from scldm.config import RunConfig, load_config
from scldm.errors import UserError, printable
from scldm.files import remove_directory, remove_leftovers
from scldm.locks import output_lock

if TYPE_CHECKING:
    from accelerate import Accelerator

    from scldm.model import ScLDM

__all__ = ["Train"]


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

    @classmethod
    def from_arguments(cls, arguments: list[str], *, prog: str) -> Train:
        """Read the configuration file first, so that its values are the defaults of the options behind it."""
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
        command: Train = parse(cls, arguments, prog=prog, default=cls(config=config, config_file=path))
        return command

    def run(self) -> None:
        """Train, or say what would be trained."""
        named_after = self.config_file or Path(str(self.config.data.path))
        output = self.output or Path("checkpoints") / named_after.stem
        if self.dry_run:
            print(_describe(self.config, output, overwrite=self.overwrite))
        else:
            _train(self.config, output, overwrite=self.overwrite, cpu=self.device == "cpu")


def _train(config: RunConfig, output: Path, *, overwrite: bool, cpu: bool) -> None:
    """Train in ``OUTPUT.training``, from where the same command continues, and write the model directory at the end."""
    from scldm.training.distributed import make_accelerator, of_main_process
    from scldm.training.interruption import stops_with_a_word
    from scldm.training.tracking import check_tracking

    check_tracking(config.tracking)
    accelerator = make_accelerator(config.precision, cpu=cpu)
    with contextlib.ExitStack() as stack:
        stack.enter_context(stops_with_a_word())
        of_main_process(lambda: stack.enter_context(output_lock(output, "train")), accelerator)
        try:
            _train_alone(config, output, accelerator, overwrite=overwrite)
        except KeyboardInterrupt as stop:
            if accelerator.is_main_process:
                done = "a checkpoint is written; " if getattr(stop, "has_checkpoint", False) else ""
                print(
                    f"stopped by {str(stop) or 'SIGINT'}; {done}the same command continues the run in {_work(output)}: "
                    f"{printable(shlex.join(['scldm', *sys.argv[1:]]))}",
                    file=sys.stderr,
                )
            raise


def _train_alone(config: RunConfig, output: Path, accelerator: Accelerator, *, overwrite: bool) -> None:
    """Train, where nobody else writes to the output."""
    from scldm.model import ScLDM
    from scldm.run import kept_if_of_use
    from scldm.storage.directory import check_model_directory_can_be_made
    from scldm.training.distributed import of_main_process
    from scldm.training.workspace import mark_as_trained, open_workspace

    work = _work(output)
    if of_main_process(lambda: _tidy_up_a_finished_run(work, output), accelerator):
        return
    of_main_process(lambda: check_model_directory_can_be_made(output, overwrite), accelerator)
    model = ScLDM.from_config(config)
    model.check_size()
    continuing = open_workspace(work, model.identity(), accelerator, overwrite)
    if accelerator.is_main_process:
        kind = f"{accelerator.num_processes} process{'es' if accelerator.num_processes > 1 else ''}"
        state = f"continuing the run in {work}" if continuing else f"working in {work}"
        print(f"{kind} on {accelerator.device}, precision {_precision(accelerator)}; {state}", file=sys.stderr)
        print(_data_sentence(model), file=sys.stderr)
    with kept_if_of_use(work, continuing, accelerator):
        summary = model.train(work, accelerator=accelerator)
    if accelerator.is_main_process:
        mark_as_trained(work, model.hash())
        model.save(output, overwrite=overwrite)
        remove_directory(work)
        print(
            f"wrote {output}: autoencoder {summary.vae['cells']:,} cells, validation loss "
            f"{summary.vae['best_loss']:.1f}; "
            f"prior {summary.prior['cells']:,} cells, validation loss {summary.prior['best_loss']:.4f}"
        )
    accelerator.wait_for_everyone()
    accelerator.end_training()


def _tidy_up_a_finished_run(work: Path, output: Path) -> bool:
    """Remove the working directory of a run that was killed between writing its model and this; tell whether it was."""
    from scldm.storage.directory import is_model, read_model
    from scldm.training.workspace import trained_model

    remove_leftovers(work)
    remove_leftovers(output)
    expected = trained_model(work)
    if expected is None or not output.is_dir() or not is_model(output) or read_model(output).fingerprint() != expected:
        return False
    remove_directory(work)
    print(f"{output} is complete; what its training had left in {work} is removed")
    return True


def _describe(config: RunConfig, output: Path, *, overwrite: bool) -> str:
    """Say what ``train`` would do, as YAML and sentences; raises what it would raise at the start."""
    from scldm.model import ScLDM
    from scldm.storage.directory import check_model_directory_can_be_made
    from scldm.training.workspace import continues

    check_model_directory_can_be_made(output, overwrite)
    model = ScLDM.from_config(config)
    model.check_split()
    model.check_size()
    resuming = continues(_work(output), model.identity(), overwrite)
    sizes = model.parameter_counts()
    lines = [
        config.to_yaml().rstrip(),
        "",
        f"# {_data_sentence(model)}",
        f"# {sizes['vae']:,} parameters in the autoencoder, {sizes['prior']:,} in the prior",
    ]
    for name, stage in (("autoencoder", config.vae_training), ("prior", config.prior_training)):
        lines.append(f"# {name}: at most {stage.cells:,} cells, {-(-stage.cells // stage.batch_size):,} steps")
    lines.append(f"# would {f'continue the run in {_work(output)} and ' if resuming else ''}write {output}")
    return "\n".join(lines)


def _data_sentence(model: ScLDM) -> str:
    schema = model.schema
    attributes = ", ".join(
        [f"{a.name} ({len(a.categories)} values)" for a in schema.categorical]
        + [f"{a.name} ({a.minimum:g} to {a.maximum:g})" for a in schema.continuous]
    )
    return (
        f"{schema.n_cells:,} cells, {schema.n_genes:,} genes, median {schema.depth.median:,.0f} UMI; "
        f"conditions: {attributes or 'none'}"
    )


def _precision(accelerator: Accelerator) -> str:
    return "float32" if accelerator.mixed_precision == "no" else str(accelerator.mixed_precision)


def _work(output: Path) -> Path:
    return output.with_name(output.name + ".training")
