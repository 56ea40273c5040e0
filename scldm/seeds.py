"""All randomness: random number generators (rngs) of torch and numpy as functions of (seed, purpose, number).

What is drawn for one purpose, or for one number of it, does not depend on what is drawn for another. So neither the
number of processes nor the order of work changes what is drawn.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    import torch

__all__ = ["Seeding", "child_rngs", "numpy_rng", "permutation_rng", "seeded_modules", "torch_rng"]

Seeding = Literal["64-bit", "32-bit"]
"""How an rng of torch follows from a seed: see :func:`torch_rng`."""

#: Set in the seed of every rng of the 64-bit kind, so that its children are of its kind.
_MARK = 1 << 63
#: Where the state of torch's Mersenne twister holds its 624 words, each in eight bytes.
_WORDS, _STATE_BYTES = slice(24, 24 + 8 * 624), 5056


def torch_rng(
    seed: int, purpose: str, number: int, device: torch.device | str, seeding: Seeding = "64-bit"
) -> torch.Generator:
    """Return an rng of torch, a pure function of its arguments.

    Parameters
    ----------
    seed
        Of the run or of the request, any integer.
    purpose
        What the numbers are for, such as ``"sample"``.
    number
        Which of many: a step, a chunk.
    device
        Where the numbers are drawn.
    seeding
        ``"64-bit"``: the state follows from a hash of all bits of the arguments, 128 bits of it on a CPU and 63 on
        other devices, so that no two rngs are ever the same. ``"32-bit"``: torch's own seeding, which on a CPU drops
        all but 32 bits, so that among some ten thousand rngs two may be the same; models of format 4 and earlier were
        made so.
    """
    import torch

    name = f"{seed}/{purpose}/{number}".encode()
    if seeding == "32-bit":
        return torch.Generator(device).manual_seed(_integer(name, 8) >> 1)
    return _seeded(torch.Generator(device), _integer(name, 16))


def child_rngs(parent: torch.Generator, n: int) -> list[torch.Generator]:
    """Return ``n`` rngs that follow from the next numbers of another, on its device.

    The rngs of a CPU are sequential: with one for each kind of draw, what a cell draws does not depend on how many
    numbers the cells after it need.
    """
    import torch

    device = parent.device
    if parent.initial_seed() & _MARK:
        words = torch.randint(torch.iinfo(torch.int64).max, (n, 2), generator=parent, device=device).tolist()
        return [_seeded(torch.Generator(device), high << 64 | low) for high, low in words]
    seeds = torch.randint(torch.iinfo(torch.int64).max, (n,), generator=parent, device=device)
    return [torch.Generator(device).manual_seed(seed) for seed in seeds.tolist()]


@contextlib.contextmanager
def seeded_modules(seed: int, purpose: str, seeding: Seeding = "64-bit") -> Iterator[None]:
    """Seed torch's global rng of the CPU, from which modules draw their first weights, and put it back afterwards.

    Parameters
    ----------
    seed, purpose, seeding
        As in :func:`torch_rng`. The 32-bit kind takes the seed as it is.
    """
    import torch

    before = torch.get_rng_state()
    try:
        if seeding == "32-bit":
            torch.default_generator.manual_seed(seed)
        else:
            # Of a rng without a number; the word has been part of the seed from the beginning.
            _seeded(torch.default_generator, _integer(f"{seed}/{purpose}/None".encode(), 16))
        yield
    finally:
        torch.set_rng_state(before)


def numpy_rng(seed: int, purpose: str = "") -> np.random.Generator:
    """Return an rng of numpy for one purpose; without a purpose, the one that numpy makes of the seed."""
    return np.random.default_rng([seed % 2**64, *purpose.encode()])


def permutation_rng(seed: int, number: int) -> np.random.Generator:
    """Return a counter-based rng of numpy (Philox), keyed by (seed, number), each modulo 2^64; for orders of cells."""
    return np.random.Generator(np.random.Philox(key=np.array([seed % 2**64, number % 2**64], dtype=np.uint64)))


def _integer(name: bytes, n_bytes: int) -> int:
    return int.from_bytes(hashlib.blake2b(name, digest_size=n_bytes).digest(), "little")


def _seeded(rng: torch.Generator, key: int) -> torch.Generator:
    """Set the state of an rng from 128 bits."""
    import torch

    rng.manual_seed(key % 2**64 | _MARK)
    if rng.device.type == "cpu":
        # Torch seeds its Mersenne twister with the lowest 32 bits: the words of the state are replaced by those that
        # numpy derives from all bits. Other devices have counter-based rngs, whose key is the seed.
        state = rng.get_state()
        if len(state) != _STATE_BYTES:
            raise RuntimeError(f"the random state of this torch has {len(state)} bytes, scldm knows {_STATE_BYTES}")
        words = np.random.SeedSequence(key).generate_state(624)
        state[_WORDS] = torch.from_numpy(words.astype(np.uint64).view(np.uint8))
        rng.set_state(state)
    return rng
