from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

from scldm import seeds


def draws(generator: torch.Generator, n: int = 4) -> list[int]:
    return torch.randint(2**62, (n,), generator=generator).tolist()


def test_a_generator_is_a_function_of_seed_purpose_and_number():
    def first(*arguments):
        return tuple(draws(seeds.torch_rng(*arguments, "cpu")))

    assert first(3, "sample", 5) == first(3, "sample", 5)
    every = {first(s, p, n) for s in (0, 1, 2**62) for p in ("sample", "vae") for n in range(50)}
    assert len(every) == 3 * 2 * 50


def test_seeds_that_share_their_lowest_32_bits_give_other_numbers():
    """Torch's own seeding of a CPU drops the bits above."""
    key = 12345
    one, two = (seeds._seeded(torch.Generator(), key + high) for high in (0, 1 << 70))
    assert draws(torch.Generator().manual_seed(key)) == draws(torch.Generator().manual_seed(key + (1 << 32)))
    assert draws(one) != draws(two)


def test_the_state_of_a_cpu_is_the_mersenne_twister_that_numpy_makes_of_the_same_words():
    generator = seeds.torch_rng(1, "a", 2, "cpu")
    key = int.from_bytes(hashlib.blake2b(b"1/a/2", digest_size=16).digest(), "little")
    words = np.random.SeedSequence(key).generate_state(624)
    twister = np.random.MT19937()
    state = twister.state
    state["state"] = {"key": words, "pos": 624}
    twister.state = state
    # Torch makes a float32 of the lowest 24 bits of a number.
    expected = (twister.random_raw(1000) & 0xFFFFFF) / 2**24
    np.testing.assert_array_equal(torch.rand(1000, generator=generator).numpy(), expected.astype(np.float32))


@pytest.mark.parametrize("seeding", ["64-bit", "32-bit"])
def test_children_follow_from_their_parent_and_differ(seeding):
    families = [seeds.child_rngs(seeds.torch_rng(0, "sample", n, "cpu", seeding), 3) for n in (0, 0, 1)]
    numbers = [[tuple(draws(child)) for child in family] for family in families]
    assert numbers[0] == numbers[1]
    assert len({*numbers[0], *numbers[2]}) == 6


def test_children_of_the_children_use_all_bits_too():
    child = seeds.child_rngs(seeds.torch_rng(0, "a", 0, "cpu"), 1)[0]
    plain = torch.Generator().manual_seed(child.initial_seed())
    assert draws(seeds.child_rngs(child, 1)[0]) != draws(plain)
    grandchild = seeds.child_rngs(child, 1)[0]
    assert not torch.equal(grandchild.get_state(), torch.Generator().manual_seed(grandchild.initial_seed()).get_state())


def test_32_bit_seeding_is_what_format_4_had():
    digest = hashlib.blake2b(b"7/sample/3", digest_size=8).digest()
    expected = torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
    found = seeds.torch_rng(7, "sample", 3, "cpu", "32-bit")
    assert torch.equal(found.get_state(), expected.get_state())
    seed = int(torch.randint(torch.iinfo(torch.int64).max, (1,), generator=expected))
    assert torch.equal(seeds.child_rngs(found, 1)[0].get_state(), torch.Generator().manual_seed(seed).get_state())


def test_modules_are_seeded_by_purpose_and_the_caller_keeps_the_state():
    def drawn(*arguments, **keywords):
        with seeds.seeded_modules(*arguments, **keywords):
            return tuple(torch.randint(2**62, (3,)).tolist())

    with torch.random.fork_rng():
        before = torch.get_rng_state()
        assert drawn(1, "vae/weights") == drawn(1, "vae/weights")
        assert len({drawn(s, p) for s in (1, 1 + (1 << 40)) for p in ("a", "b")}) == 4
        with pytest.raises(KeyboardInterrupt), seeds.seeded_modules(1, "a"):
            raise KeyboardInterrupt
        assert torch.equal(torch.get_rng_state(), before)
        torch.manual_seed(5)
        expected = tuple(torch.randint(2**62, (3,)).tolist())
        assert drawn(5, "vae/weights", seeding="32-bit") == expected


def test_numpy_generators_differ_by_purpose_and_take_all_bits_of_the_seed():
    def first(*arguments):
        return int(seeds.numpy_rng(*arguments).integers(2**62))

    assert first(3, "a") == first(3, "a")
    assert len({first(s, p) for s in (0, 1, 1 + (1 << 40)) for p in ("", "a", "b")}) == 9
    assert first(3) == int(np.random.default_rng(3).integers(2**62))
    order = seeds.permutation_rng(-1, 4).permutation(50).tolist()
    assert order == seeds.permutation_rng(2**64 - 1, 4).permutation(50).tolist()
    assert order != seeds.permutation_rng(2**64 - 1, 5).permutation(50).tolist()
