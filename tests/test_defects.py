"""Known ways in which a generator of this kind goes wrong without anyone noticing, one test each."""

from __future__ import annotations

import dataclasses
import json
import shutil
import weakref

import numpy as np
import pytest
import scipy.sparse as sp
import tiny
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from scldm.config import RunConfig, TrainingConfig, VAEConfig
from scldm.data.batch import CellBatch
from scldm.data.order import EpochOrder
from scldm.errors import UserError
from scldm.evaluation.metrics.kernels import median_bandwidth, mmd2
from scldm.generation import sampler
from scldm.generation.request import CHUNK_CELLS, GenerationRequest
from scldm.model import ScLDM
from scldm.nn.embeddings import SinusoidalTime
from scldm.prior.guidance import Guidance
from scldm.prior.latents import LatentBatch, LatentStatistics
from scldm.prior.objective import PriorObjective
from scldm.seeds import torch_rng
from scldm.trained import build_prior
from scldm.training.schedule import learning_rate_factor
from scldm.training.state import load_checkpoint
from scldm.vae.model import VAE

BOTH = {"cell_type": "T cell", "batch": "two"}


def relative_change(before: torch.Tensor, after: torch.Tensor) -> float:
    return ((after - before).norm() / before.norm()).item()


@pytest.fixture
def network_rows(trained, monkeypatch) -> list[int]:
    """Rows of every call of the prior network."""
    rows: list[int] = []
    forward = type(trained.trained.prior).forward
    monkeypatch.setattr(
        type(trained.trained.prior),
        "forward",
        lambda self, state, *rest: rows.append(len(state)) or forward(self, state, *rest),
    )
    return rows


def generate(model: ScLDM, n_cells: int = 5, **options):
    return model.sample(n_cells, **{"steps": 2, **options})


@pytest.mark.parametrize("layout", ["wide", "published"])
def test_encoder_ignores_count_magnitudes(layout):
    """The default encoder of either layout must tell a cell from one with the same genes on at other counts."""
    torch.manual_seed(0)
    vae = VAE(VAEConfig(layout=layout), 60).eval()
    counts = tiny.tiny_adata().X.toarray()[:16]
    changed = np.where(counts > 0, np.random.default_rng(0).integers(1, 500, counts.shape), 0)
    before, after = (vae.encode(CellBatch.from_csr(sp.csr_matrix(c))).mean for c in (counts, changed))
    assert relative_change(before, after) > 0.02


@pytest.mark.parametrize("layout", ["wide", "published"])
def test_padding_reaches_the_latents(layout):
    """A cell's latent must not move when a cell with many more genes joins its batch."""
    torch.manual_seed(0)
    vae = VAE(VAEConfig(layout=layout), 300).eval()
    counts = np.zeros((2, 300))
    counts[0, :10], counts[1, :] = 3, 2
    alone = vae.encode(CellBatch.from_csr(sp.csr_matrix(counts[:1]))).mean
    together = vae.encode(CellBatch.from_csr(sp.csr_matrix(counts))).mean[:1]
    assert relative_change(alone, together) < 1e-5


def test_samples_come_from_the_online_weights(tmp_path):
    """What is kept, saved and sampled must be the average of the weights, not the last ones."""
    plain = tiny.tiny_model().config
    stage = tiny.tiny_training(cells=240, validate_every=240, checkpoint_every=240, ema_decay=0.95)
    model = tiny.tiny_model(RunConfig(**{**vars(plain), "vae_training": stage, "prior_training": stage}))
    model.train(tmp_path, accelerator=Accelerator(cpu=True))
    model.save(tmp_path / "model")
    for name, network in (("vae", model.trained.vae), ("prior", model.trained.prior)):
        last = load_checkpoint(tmp_path / f"{name}-checkpoint")
        saved = load_file(tmp_path / "model" / f"{name}.safetensors")
        for key, parameter in network.named_parameters():
            assert torch.equal(parameter, last.tensors["ema"][key]), key
            assert torch.equal(saved[key], last.tensors["ema"][key]), key
        online = [last.tensors["model"][f"network.{key}"] for key, _ in network.named_parameters()]
        assert sum(not torch.equal(p, q) for p, q in zip(network.parameters(), online, strict=True)) > 0.9 * len(online)


@pytest.mark.parametrize(("solver", "per_step"), [("euler", 1), ("midpoint", 2), ("heun", 2)])
@pytest.mark.parametrize("steps", [1, 7])
def test_number_of_steps_is_ignored(trained, network_rows, solver, per_step, steps):
    """The steps asked for are the steps taken."""
    generate(trained, solver=solver, steps=steps)
    assert len(network_rows) == per_step * steps


def test_whole_trajectory_is_kept_in_memory(trained, monkeypatch):
    """States in between must be freed: only a few are alive at any time, however many steps there are."""
    alive: list[weakref.ref] = []
    most = 0
    prior = trained.trained.prior
    forward = type(prior).forward

    def spying(self, state, *rest):
        nonlocal most
        velocity = forward(self, state, *rest)
        alive.append(weakref.ref(velocity))
        most = max(most, sum(ref() is not None for ref in alive))
        return velocity

    monkeypatch.setattr(type(prior), "forward", spying)
    generate(trained, steps=20, solver="euler")
    assert len(alive) == 20
    assert most <= 3


@pytest.mark.parametrize(
    ("guidance", "rows"),
    [(1.0, 1), (0.0, 1), (2.0, 2), (Guidance.additive(2.0), 3), ({"cell_type": 2.0}, 3), (Guidance.additive(0.5), 2)],
)
def test_guidance_evaluates_rows_that_are_not_needed(trained, network_rows, guidance, rows):
    """One row per velocity with a coefficient, none besides: (1 + C) B at most for C attributes."""
    generate(trained, conditions=BOTH, guidance=guidance, steps=1, solver="euler")
    assert network_rows == [rows * CHUNK_CELLS]


def test_unconditional_cells_are_mixed_into_the_output(trained):
    """A guided request gives the cells asked for and no others, each with its own label."""
    kinds = ["T cell", "B cell", "monocyte"] * 4
    cells = generate(trained, None, conditions={"cell_type": kinds}, guidance=3.0)
    assert cells.obs["cell_type"].tolist() == kinds
    assert cells.n_obs == 12
    assert len(np.unique(cells.obsm["X_scldm"], axis=0)) == 12


def test_attributes_are_not_dropped_independently():
    """Every subset of the attributes of a cell must be trained on, within one batch."""
    model = tiny.tiny_model()
    prior, seen = build_prior(model.config, model.schema), {}
    prior.register_forward_pre_hook(lambda _, args: seen.update(categorical=args[2], continuous=args[3]))
    n, size = 512, prior.state_size - 1
    config = dataclasses.replace(model.config.prior, attribute_dropout=0.3)
    objective = PriorObjective(prior, LatentStatistics(torch.zeros(size), torch.ones(size)), config)
    codes = torch.zeros(n, 2, dtype=torch.int64)
    batch = LatentBatch(torch.zeros(n, size), torch.zeros(n, size), torch.zeros(n), codes, torch.zeros(n, 1))
    objective(batch, objective.draw_noise(n, torch_rng(0, "prior", 0, "cpu")))
    shown = torch.cat([seen["categorical"] >= 0, ~seen["continuous"].isnan()], 1)
    assert len(shown.unique(dim=0)) == 2**3


def test_a_subset_of_the_attributes_cannot_be_asked_for(trained):
    """Any subset can, and an attribute that is left out is left to the model."""
    for names in ((), ("cell_type",), ("batch",), ("cell_type", "batch")):
        cells = generate(trained, conditions={name: BOTH[name] for name in names})
        assert tuple(cells.obs.columns) == names


def test_scales_of_two_attributes_are_averaged(trained):
    """Every attribute has its own scale: exchanging two different scales must give other cells than their mean."""
    latents = [
        generate(trained, conditions=BOTH, guidance=scales).obsm["X_scldm"]
        for scales in (
            {"cell_type": 3.0, "batch": 1.0},
            {"cell_type": 1.0, "batch": 3.0},
            {"cell_type": 2.0, "batch": 2.0},
        )
    ]
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(latents[i] - latents[j]).max() > 1e-4


def test_evaluation_is_random(trained):
    """In evaluation mode, the networks give the same for the same, and sampling touches no global randomness."""
    batch = tiny.tiny_model()._source.batch(np.arange(10))
    vae = trained.trained.vae
    assert torch.equal(vae.encode(batch).mean, vae.encode(batch).mean)
    first = generate(trained, conditions=BOTH)
    torch.manual_seed(123)
    assert (generate(trained, conditions=BOTH).X != first.X).nnz == 0


@pytest.mark.filterwarnings("ignore:never observed", "ignore:outside the range")
@pytest.mark.parametrize("conditions", [{}, {"cell_type": "monocyte", "batch": "two"}, {"age": 1e3}])
def test_cells_of_one_umi(trained, conditions):
    """Without conditions, or with one that no training cell had, depth is still that of a cell."""
    totals = np.asarray(generate(trained, 200, conditions=conditions).X.sum(1)).ravel()
    assert np.median(totals) > 0.5 * trained.schema.depth.minimum
    assert totals.max() < 2 * trained.schema.depth.maximum


def test_depth_statistics_come_from_elsewhere(model_dir):
    """They are measured on the training cells and lie in the model directory as text."""
    depth = json.loads((model_dir / "schema.json").read_text())["depth"]
    totals = np.asarray(tiny.tiny_adata().X.sum(1)).ravel()
    assert (depth["n_cells"], depth["quantiles"][0], depth["quantiles"][-1]) == (120, totals.min(), totals.max())
    assert depth["quantiles"][100] == pytest.approx(np.median(totals), abs=1)


def test_time_features_hardly_change_along_the_path():
    """Most features of time have to vary between noise and data."""
    times = torch.linspace(0, 1, 201)

    def share_that_moves(scale):
        return (SinusoidalTime(256, scale)(times).std(0) > 0.3).float().mean().item()

    assert share_that_moves(RunConfig().prior.time_scale) > 0.6
    assert share_that_moves(1.0) < 0.2


def test_training_cells_are_never_shuffled():
    """Epochs differ in order, cover all cells, and are a function of the seed."""
    order, same, other = (EpochOrder(1000, 100, seed=seed) for seed in (0, 0, 1))
    epochs = [np.concatenate([order.batch(epoch, step) for step in range(10)]) for epoch in (0, 1)]
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(1000))
        assert np.abs(np.corrcoef(epoch, np.arange(1000))[0, 1]) < 0.15
    assert not np.array_equal(*epochs)
    np.testing.assert_array_equal(same.batch(1, 4), order.batch(1, 4))
    assert not np.array_equal(other.batch(1, 4), order.batch(1, 4))


@pytest.mark.parametrize("name", ["vae.safetensors", "prior.safetensors"])
def test_missing_weights_are_a_warning_and_cells_come_from_random_ones(model_dir, tmp_path, name):
    """Without the weights there are no cells."""
    directory = shutil.copytree(model_dir, tmp_path / "model")
    (directory / name).unlink()
    with pytest.raises(UserError, match=f"{name} is missing"):
        ScLDM.load(directory)
    with pytest.raises(UserError, match="not been trained"):
        tiny.tiny_model().sample(3)


@pytest.mark.parametrize("layout", ["wide", "published"])
def test_training_needs_a_gpu(layout):
    """A gradient step on the CPU lowers the loss, with either layout."""
    plain = tiny.tiny_model().config
    stage = tiny.tiny_training(cells=96, validate_every=24, learning_rate=1e-2, warmup_cells=0)
    config = RunConfig(
        **{**vars(plain), "vae": tiny.tiny_vae(layout=layout), "vae_training": stage, "prior_training": stage}
    )
    model = tiny.tiny_model(config)
    summary = model.train(accelerator=Accelerator(cpu=True))
    first = json.loads(model.trained.metrics.splitlines()[0])
    assert summary.device == "cpu"
    assert summary.vae["best_loss"] < first["train_loss"]


def test_rates_depend_on_the_genes_asked_for(trained):
    """A gene's rate, and what is drawn from it, is the same in every list of genes."""
    everything, some = (trained.sample(40, genes=genes, steps=2) for genes in (None, ["GENE50", "GENE3"]))
    assert list(some.var_names) == ["GENE50", "GENE3"]
    assert some.X.sum() > 0
    assert (some.X != everything[:, ["GENE50", "GENE3"]].X).nnz == 0


def test_distance_between_distributions_is_degenerate():
    """The kernel has to be as wide as the data: different samples are far apart, equal ones are not."""
    random = np.random.default_rng(0)
    real, same = random.normal(0, 10, (2, 150, 30))
    other = random.normal(8, 10, (150, 30))
    bandwidths = [median_bandwidth(real) * factor for factor in (0.5, 1.0, 2.0)]
    assert mmd2(real, other, bandwidths) > 20 * abs(mmd2(real, same, bandwidths))
    # A bandwidth of one sees nothing at all at this scale.
    assert abs(mmd2(real, other, [1.0])) < 1e-6


def test_learning_rate_drops_in_one_step():
    """From step to step, the cosine changes by no more than its slope allows."""
    config = RunConfig().vae_training
    steps = range(0, config.cells, config.batch_size)
    factors = np.array([learning_rate_factor(config, cells) for cells in steps])
    decay = -np.diff(factors)
    assert decay.max() < 1.01 * np.pi / 2 * config.batch_size / (config.cells - config.warmup_cells)
    assert factors[-1] < 0.01


def test_settings_are_discarded_silently():
    """Every setting of a stage is either used or refused; none is accepted and dropped."""
    with pytest.raises(UserError, match=r"Unknown key 'vae_training.eps'"):
        RunConfig.from_dict({"vae_training": {"eps": 1e-6}})
    with pytest.raises(TypeError, match="eps"):
        TrainingConfig(eps=1e-6)


def test_unknown_labels_and_genes_are_masked_silently(trained):
    """A label or a gene that the model does not know is an error that names it."""
    with pytest.raises(UserError, match=r"'T-cell' is not a value of 'cell_type'.*'T cell'"):
        trained.sample(1, conditions={"cell_type": "T-cell"})
    with pytest.raises(UserError, match=r"unknown gene 'gene7'.*'GENE7'"):
        trained.sample(1, genes=["gene7"])
    adata = tiny.tiny_adata()
    adata.obs.loc["cell3", "cell_type"] = np.nan
    with pytest.raises(UserError, match="'cell_type' is missing for 1 of 120 cells"):
        ScLDM(adata, conditions=["cell_type"])


def test_processes_do_the_same_work_and_race_for_one_file(trained, monkeypatch):
    """Ranks generate different chunks, every chunk once, and only the first one writes."""
    chunks: dict[int, list[int]] = {0: [], 1: []}
    block = sampler._block

    for rank in chunks:
        with monkeypatch.context() as patch:
            patch.setattr("scldm.generation.sampler._gather", lambda own, rank, _: [own] if rank == 0 else [])
            patch.setattr(
                sampler,
                "_block",
                lambda model, request, numbers, rank=rank: (
                    chunks[rank].extend(numbers) or block(model, request, numbers)
                ),
            )
            request = GenerationRequest.build(trained.schema, 5 * CHUNK_CELLS, steps=1)
            written = sum(
                b.counts.shape[0]
                for b in sampler.generate(trained.trained, request, CHUNK_CELLS, rank=rank, world_size=2)
            )
        assert written == (3 * CHUNK_CELLS if rank == 0 else 0)
    assert chunks == {0: [0, 2, 4], 1: [1, 3]}
