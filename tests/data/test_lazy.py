from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import scldm.data

# The package around it is an empty one, so that only what the data room itself imports is seen.
LOOK = """
import sys, types
package = types.ModuleType("scldm")
package.__path__ = [{path!r}]
sys.modules["scldm"] = package
import {module}
print(*[name for name in ("torch", "anndata", "scanpy", "h5py") if name in sys.modules])
"""


def loaded_by(module: str) -> list[str]:
    look = LOOK.format(path=str(Path(scldm.data.__file__).parents[1]), module=module)
    return subprocess.run([sys.executable, "-c", look], check=True, capture_output=True, text=True).stdout.split()


def test_a_schema_needs_neither_torch_nor_anndata() -> None:
    assert loaded_by("scldm.data") == []
    assert loaded_by("scldm.data.schema") == []
    assert loaded_by("scldm.data.batch") == ["torch"]


def test_all_public_names_are_there() -> None:
    assert set(scldm.data.__all__) <= set(dir(scldm.data))
    assert all(getattr(scldm.data, name).__name__ == name for name in scldm.data.__all__)
