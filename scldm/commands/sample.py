"""``scldm sample``: from a model directory and a request to an ``.h5ad``."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from scldm.commands.device import choose_device
from scldm.data.h5ad import open_h5ad, read_obs
from scldm.errors import UserError, nearest_names
from scldm.generation.request import GenerationRequest
from scldm.generation.writer import check_other_file, check_writable
from scldm.model import ScLDM
from scldm.prior.guidance import Guidance
from scldm.training.distributed import make_accelerator

__all__ = ["parse_conditions", "parse_guidance", "sample"]


def sample(
    model_dir: Path,
    output: Path,
    *,
    n_cells: int | None = None,
    conditions: Sequence[str] = (),
    guidance: Sequence[str] = ("1.0",),
    guidance_mode: str | None = None,
    like: Path | None = None,
    depth: str | None = None,
    layer: str | None = None,
    genes: Path | None = None,
    solver: str = "heun",
    steps: int | None = None,
    seed: int = 0,
    batch_size: int = 512,
    device: str = "auto",
    overwrite: bool = False,
    part: str | None = None,
) -> None:
    """Generate cells into a file.

    Parameters
    ----------
    model_dir, output
        Model directory and ``.h5ad``.
    n_cells
        Number of cells; None takes the cells of ``like``.
    conditions
        ``name=value`` each.
    guidance
        One number, or ``name=number`` each.
    guidance_mode
        ``joint`` or ``additive``; None lets the form of ``guidance`` decide.
    like
        Real ``.h5ad`` whose rows give the attributes that ``conditions`` do not.
    depth
        A number of UMI, or ``like``.
    layer
        Layer of ``like`` with the counts that give the depths; None reads ``X``.
    genes
        File with a gene name per line.
    solver, steps, seed, batch_size, overwrite
        See :meth:`scldm.ScLDM.sample`.
    device
        ``auto``, ``cpu``, ``cuda`` or ``mps``.
    part
        ``K/N``: only part K of N of the cells asked for.

    Raises
    ------
    UserError
        For anything that is not available; the message names it.
    """
    check_writable(output, overwrite)
    check_other_file(output, like)
    for option, number, least in (
        ("n-cells", n_cells, 1),
        ("steps", steps, 1),
        ("batch-size", batch_size, 1),
        ("seed", seed, 0),
    ):
        if number is not None and number < least:
            raise UserError(f"--{option} is {number}; it must be at least {least}.")
    if layer is not None and depth != "like":
        raise UserError("--layer says where --like has its counts, which are read with --depth like only.")
    scales = parse_guidance(guidance, guidance_mode)
    chosen_device = choose_device(device)
    accelerator = None
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        accelerator = make_accelerator("float32", cpu=device == "cpu")
    model = ScLDM.load(model_dir, chosen_device if accelerator is None else accelerator.device)
    columns: dict[str, Any] = parse_conditions(conditions)
    rows = None
    if like is not None:
        rows, columns = _like(model, like, columns, n_cells, seed, depth == "like")
        n_cells = len(rows)
    elif depth == "like":
        raise UserError("--depth like takes each cell's depth from a file; name it with --like REAL.h5ad.")
    elif n_cells is None:
        raise UserError("how many cells? Give --n-cells N, or --like REAL.h5ad.")
    request = GenerationRequest.build(
        model.schema,
        n_cells,
        conditions=columns,
        depth=_depth(depth, model, like, layer, rows),
        genes=None if genes is None else _gene_list(genes),
        guidance=scales,
        solver=solver,
        steps=steps,
        seed=seed,
    )
    if part is not None:
        request = request.part(*_part(part))
    with _progress(request.n_cells, accelerator is None or accelerator.is_main_process) as bar:
        model.sample_to_file(
            output,
            request,
            batch_size=batch_size,
            overwrite=overwrite,
            accelerator=accelerator,
            on_cells=bar.update,
        )
    if accelerator is None or accelerator.is_main_process:
        n_genes = model.schema.n_genes if request.genes is None else len(request.genes)
        print(f"wrote {output}: {request.n_cells:,} cells x {n_genes:,} genes")
    if accelerator is not None:
        accelerator.wait_for_everyone()
        accelerator.end_training()


def parse_conditions(pairs: Sequence[str]) -> dict[str, str]:
    """Split ``name=value`` pairs; raises ``UserError`` for one that is none, and for a repeated name."""
    return _pairs(pairs, "condition", 'NAME=VALUE, for example cell_type="B cell"')


def _pairs(words: Sequence[str], what: str, form: str) -> dict[str, str]:
    result: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not (equals and name and value):
            raise UserError(f"the {what} '{word}' is not of the form {form}.")
        if name in result:
            raise UserError(f"the {what} of '{name}' is given twice; it can have one value only.")
        result[name] = value
    return result


def parse_guidance(words: Sequence[str], mode: str | None = None) -> Guidance:
    """Read ``2.0`` or ``cell_type=2.0 batch=1.5``; raises ``UserError`` for anything else."""
    scales: float | Mapping[str, float]
    if len(words) == 1 and "=" not in words[0]:
        scales = _number(words[0], "guidance")
    else:
        pairs = _pairs(words, "guidance", "NAME=SCALE, and a single number has to stand alone")
        scales = {name: _number(value, f"guidance of '{name}'") for name, value in pairs.items()}
    if mode == "additive":
        return Guidance.additive(scales)
    if mode == "joint" and not isinstance(scales, float):
        raise UserError("joint guidance takes one number; give one scale, or --guidance-mode additive.")
    return Guidance.parse(scales)


def _number(text: str, what: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UserError(f"{what} is '{text}'; it must be a number.") from None


def _like(
    model: ScLDM, path: Path, columns: Mapping[str, Any], n_cells: int | None, seed: int, for_depth: bool
) -> tuple[np.ndarray, dict[str, Any]]:
    """Rows of a real file to be reproduced, and the attributes they have."""
    with open_h5ad(path) as file:
        obs = read_obs(file)
    if not len(obs):
        raise UserError(f"'{path}' has no cells.")
    names = [name for name in model.schema.attribute_names if name in obs.columns and name not in columns]
    if not names and not columns and not for_depth:
        wanted = model.schema.attribute_names
        if not wanted:
            raise UserError(f"the model has no attributes to take from '{path}'; add --depth like, or use --n-cells N.")
        hint = nearest_names(wanted[0], obs.columns) if len(obs.columns) else "the file has no obs columns"
        raise UserError(f"'{path}' has none of the model's attributes ({', '.join(wanted)}) in obs; {hint}")
    for name in names:
        n_missing = int(obs[name].isna().sum())
        if n_missing:
            raise UserError(
                f"in '{path}': '{name}' is missing for {n_missing} of {len(obs)} cells; remove these cells, or give "
                f"one value for all with --condition {name}=VALUE."
            )
    try:
        model.schema.encode_attributes(obs[names])
    except UserError as error:
        raise UserError(f"in '{path}': {error}") from error
    left = [name for name in model.schema.attribute_names if name not in (*names, *columns)]
    if left:
        warnings.warn(f"'{path}' does not have {', '.join(left)}; the model chooses the values.", stacklevel=2)
    rows = np.arange(len(obs))
    if n_cells is not None and n_cells != len(obs):
        # Whole copies of the file and a random rest keep its proportions.
        copies, rest = divmod(n_cells, len(obs))
        drawn = np.random.default_rng(seed).choice(len(obs), rest, replace=False)
        rows = np.sort(np.concatenate([np.tile(rows, copies), drawn]))
    taken = {name: obs[name].iloc[rows].reset_index(drop=True) for name in names}
    fixed = {name: pd.Series([value] * len(rows)) for name, value in columns.items()}
    return rows, {**taken, **fixed}


def _depth(
    depth: str | None, model: ScLDM, like: Path | None, layer: str | None, rows: np.ndarray | None
) -> float | np.ndarray | None:
    if depth is None:
        return None
    if depth == "like":
        assert like is not None
        return model.open_aligned(like, layer=layer).library_sizes()[rows]
    return _number(depth, "depth")


def _part(text: str) -> tuple[int, int]:
    number, slash, parts = text.partition("/")
    if not (slash and number.isdecimal() and parts.isdecimal()):
        raise UserError(f"the part '{text}' is not of the form K/N, for example 2/8.")
    return int(number), int(parts)


def _gene_list(path: Path) -> list[str]:
    if not path.is_file():
        raise UserError(f"there is no file '{path}' with a list of genes.")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise UserError(f"the gene list '{path}' is not a text file.") from None
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise UserError(f"the gene list '{path}' is empty.")
    return names


@contextmanager
def _progress(n_cells: int, shown: bool) -> Iterator[Any]:
    with tqdm(
        total=n_cells, unit="cell", unit_scale=True, desc="sampling", disable=not (shown and sys.stderr.isatty())
    ) as bar:
        yield bar
