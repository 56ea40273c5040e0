"""``scldm train``: from a configuration to a model directory, resumable."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import yaml
from accelerate import Accelerator
from safetensors import SafetensorError

from scldm.config import RunConfig
from scldm.errors import UserError
from scldm.model import ScLDM
from scldm.model_directory import check_absent
from scldm.training.distributed import make_accelerator
from scldm.training.workspace import continues, open_workspace

__all__ = ["describe_run", "train"]


def train(config: RunConfig, output: Path, *, overwrite: bool = False, cpu: bool = False) -> None:
    """Train a model and write its directory.

    While training, everything is in ``OUTPUT.training``; a run that was killed continues from there when the same
    command is run again. The model directory appears at the end, whole.

    Parameters
    ----------
    config
        The run.
    output
        Model directory to make.
    overwrite
        Replace an existing model directory, and start anew if an unfinished run of another configuration is in the way.
    cpu
        Leave a GPU alone.

    Raises
    ------
    UserError
        If ``output`` is in the way, an unfinished run differs from this one, or the data cannot be used.
    """
    check_absent(output, overwrite)
    model = ScLDM.from_config(config)
    accelerator = make_accelerator(config.precision, cpu=cpu)
    work = _work(output)
    resuming = open_workspace(work, model.identity(), accelerator, overwrite)
    if accelerator.is_main_process:
        kind = f"{accelerator.num_processes} process{'es' if accelerator.num_processes > 1 else ''}"
        state = f"continuing the run in {work}" if resuming else f"working in {work}"
        print(f"{kind} on {accelerator.device}, precision {_precision(accelerator)}; {state}", file=sys.stderr)
        print(_data_sentence(model), file=sys.stderr)
    try:
        summary = model.train(work, accelerator=accelerator)
    except UserError:
        # Nothing there is worth continuing: it would stop at the same place.
        if accelerator.is_main_process and not resuming:
            shutil.rmtree(work)
        raise
    except KeyboardInterrupt:
        if accelerator.is_main_process:
            print(f"stopped; the same command continues the run in {work}", file=sys.stderr)
        raise
    except SafetensorError as error:
        raise UserError(f"a file in '{work}' is damaged ({error}); delete the directory to start anew.") from error
    if accelerator.is_main_process:
        model.save(output, overwrite=overwrite)
        shutil.rmtree(work)
        print(
            f"wrote {output}: autoencoder {summary.vae['cells']:,} cells, validation loss "
            f"{summary.vae['best_loss']:.1f}; "
            f"prior {summary.prior['cells']:,} cells, validation loss {summary.prior['best_loss']:.4f}"
        )
    accelerator.wait_for_everyone()
    accelerator.end_training()


def describe_run(config: RunConfig, output: Path, *, overwrite: bool = False) -> str:
    """Say what ``train`` would do, as YAML and sentences; raises what it would raise at the start."""
    check_absent(output, overwrite)
    model = ScLDM.from_config(config)
    model.check_split()
    resuming = continues(_work(output), model.identity(), overwrite)
    sizes = model.parameter_counts()
    lines = [
        yaml.safe_dump(config.to_dict(), sort_keys=False).rstrip(),
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
