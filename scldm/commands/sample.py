"""``scldm sample``: from a model directory and a request to an ``.h5ad``."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tqdm import tqdm
from tyro.conf import Positional, UseAppendAction, arg

from scldm.commands.options import choose_device, flat, number, pairs
from scldm.errors import UserError
from scldm.files import check_file_can_be_made, check_is_another_file

if TYPE_CHECKING:
    import numpy as np

    from scldm.generation.request import GenerationRequest
    from scldm.model import ScLDM
    from scldm.prior.guidance import Guidance

__all__ = ["Sample", "parse_conditions", "parse_guidance"]


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
    exact_depth: bool = False
    """Draw counts that add up to the depth of each cell; otherwise they do so on average."""
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
        """Generate the cells and write the file."""
        self._check()
        guidance = parse_guidance(flat("--guidance", self.guidance) or ("1.0",), self.guidance_mode)
        from scldm.model import ScLDM
        from scldm.training.distributed import make_accelerator, started_processes

        device: Any = choose_device(self.device)
        accelerator = None
        if started_processes() > 1:
            accelerator = make_accelerator("float32", cpu=self.device == "cpu")
            device = accelerator.device
        model = ScLDM.load(self.model_dir, device)
        request = self._request(model, guidance)
        with _progress(request.n_cells, accelerator is None or accelerator.is_main_process) as bar:
            model.sample_to_file(
                self.output,
                request,
                batch_size=self.batch_size,
                overwrite=self.overwrite,
                accelerator=accelerator,
                on_cells=bar.update,
            )
        if accelerator is None or accelerator.is_main_process:
            n_genes = model.schema.n_genes if request.genes is None else len(request.genes)
            print(f"wrote {self.output}: {request.n_cells:,} cells x {n_genes:,} genes")
        if accelerator is not None:
            accelerator.wait_for_everyone()
            accelerator.end_training()

    def _check(self) -> None:
        """Refuse what can be refused before anything is loaded."""
        check_file_can_be_made(self.output, self.overwrite)
        check_is_another_file(self.output, self.like)
        for option, value, least in (
            ("n-cells", self.n_cells, 1),
            ("steps", self.steps, 1),
            ("batch-size", self.batch_size, 1),
            ("seed", self.seed, 0),
        ):
            if value is not None and value < least:
                raise UserError(f"--{option} is {value}; it must be at least {least}.")
        if self.layer is not None and self.depth != "like":
            raise UserError("--layer says where --like has its counts, which are read with --depth like only.")

    def _request(self, model: ScLDM, guidance: Guidance) -> GenerationRequest:
        """Put the options into a request."""
        from scldm.generation.like import cells_like
        from scldm.generation.request import GenerationRequest

        conditions: Mapping[str, Any] = parse_conditions(flat("--condition", self.condition))
        n_cells, rows = self.n_cells, None
        if self.like is not None:
            rows, conditions = cells_like(
                model.schema, self.like, conditions, n_cells, self.seed, for_depth=self.depth == "like"
            )
            n_cells = len(rows)
        elif self.depth == "like":
            raise UserError("--depth like takes each cell's depth from a file; name it with --like REAL.h5ad.")
        elif n_cells is None:
            raise UserError("how many cells? Give --n-cells N, or --like REAL.h5ad.")
        request = GenerationRequest.build(
            model.schema,
            n_cells,
            conditions=conditions,
            depth=self._depth(model, rows),
            genes=None if self.genes is None else _gene_list(self.genes),
            guidance=guidance,
            solver=self.solver,
            steps=self.steps,
            seed=self.seed,
            exact_depth=self.exact_depth,
        )
        return request if self.part is None else request.part(*_part(self.part))

    def _depth(self, model: ScLDM, rows: np.ndarray | None) -> float | np.ndarray | None:
        """Read --depth: a number, or the depths of the rows of --like."""
        from scldm.tasks.cells import open_aligned

        if self.depth is None:
            return None
        if self.depth == "like":
            assert self.like is not None
            depths: np.ndarray = open_aligned(model.trained, self.like, layer=self.layer).library_sizes()[rows]
            return depths
        return number(self.depth, "depth")


def parse_conditions(words: Sequence[str]) -> dict[str, str]:
    """Split ``name=value`` pairs; raises ``UserError`` for one that is none, and for a repeated name."""
    return pairs(words, "condition", 'NAME=VALUE, for example cell_type="B cell"')


def parse_guidance(words: Sequence[str], mode: str | None = None) -> Guidance:
    """Read ``2.0`` or ``cell_type=2.0 batch=1.5``; raises ``UserError`` for anything else."""
    from scldm.prior.guidance import Guidance

    scales: float | Mapping[str, float]
    if len(words) == 1 and "=" not in words[0]:
        scales = number(words[0], "guidance")
    else:
        given = pairs(words, "guidance", "NAME=SCALE, and a single number has to stand alone")
        scales = {name: number(value, f"guidance of '{name}'") for name, value in given.items()}
    if mode == "additive":
        return Guidance.additive(scales)
    if mode == "joint" and not isinstance(scales, float):
        raise UserError("joint guidance takes one number; give one scale, or --guidance-mode additive.")
    return Guidance.parse(scales)


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
