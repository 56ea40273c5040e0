from __future__ import annotations

import json

import pytest

from scldm.seals import DamagedFileError, checksum, read_sealed, write_sealed

CONTENT = {"steps": 3, "loss": 0.1 + 0.2, "names": ["a", None]}


@pytest.fixture
def sealed(tmp_path):
    (tmp_path / "weights.bin").write_bytes(bytes(range(256)) * 50)
    write_sealed(tmp_path / "seal.json", CONTENT, [tmp_path / "weights.bin"])
    return tmp_path / "seal.json"


def test_content_comes_back(sealed):
    assert read_sealed(sealed) == CONTENT


def test_every_flipped_bit_is_found(sealed):
    for path in (sealed, sealed.with_name("weights.bin")):
        whole = path.read_bytes()
        for place in range(0, len(whole), max(1, len(whole) // 60)):
            damaged = bytearray(whole)
            damaged[place] ^= 4
            path.write_bytes(damaged)
            with pytest.raises(DamagedFileError, match="damaged"):
                read_sealed(sealed)
        path.write_bytes(whole)
    assert read_sealed(sealed) == CONTENT


@pytest.mark.parametrize("keep", [0, 1, 0.5, -1])
@pytest.mark.parametrize("name", ["seal.json", "weights.bin"])
def test_every_truncation_is_found(sealed, name, keep):
    path = sealed.with_name(name)
    whole = path.read_bytes()
    path.write_bytes(whole[: keep if isinstance(keep, int) else int(len(whole) * keep)])
    with pytest.raises(DamagedFileError, match=name):
        read_sealed(sealed)


@pytest.mark.parametrize("text", ["", "[]", "3", "null", "{}", '{"checksum": 3}', "[" * 100_000, "\ud800"])
def test_what_is_no_seal_is_damaged(sealed, text):
    sealed.write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(DamagedFileError, match="damaged"):
        read_sealed(sealed)


def test_a_missing_file_is_found_and_other_directories_are_never_looked_at(sealed):
    sealed.with_name("weights.bin").unlink()
    with pytest.raises(DamagedFileError, match=r"weights\.bin' is damaged, missing, or was changed"):
        read_sealed(sealed)
    body = json.loads(sealed.read_text())
    assert list(body["files"]) == ["weights.bin"]


def test_a_checksum_is_of_the_content_alone(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"the same")
    assert checksum(tmp_path / "a") == checksum(tmp_path / "b")
    assert len(checksum(tmp_path / "a")) == 32
