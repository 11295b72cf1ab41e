"""Golden cases: one folder each, holding case.json, arrays.npz and, where a model is involved, state dicts."""

import dataclasses
import functools
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = "TRM_PARITY_DIR"  # environment variable that names the folder of the cases
ROOT = Path(os.environ.get(FOLDER, Path(__file__).parents[1] / ".." / "shared" / "parity"))


@dataclasses.dataclass(frozen=True)
class Case:
    """One golden case: `info` is its case.json, `arrays` its arrays.npz."""

    folder: Path

    def __str__(self) -> str:
        return self.name

    @property
    def name(self) -> str:
        return self.folder.name

    @functools.cached_property
    def info(self) -> dict[str, Any]:
        return json.loads((self.folder / "case.json").read_text())

    @functools.cached_property
    def arrays(self) -> Mapping[str, np.ndarray]:
        with np.load(self.folder / "arrays.npz") as file:
            return {name: file[name] for name in file.files}

    def state_dict(self, file: str = "state_dict.pt") -> dict[str, Any]:
        """Name → torch tensor, as the PyTorch trainer saved it."""
        import torch

        return torch.load(self.folder / file, weights_only=True)

    def atol(self, array: str, floor: float = 0.0) -> float:
        """Tolerance of an array: ten times the float32 noise that its case.json records, at least `floor`."""
        noise = self.info.get("float32_noise", {}).get(array, {})
        return max(noise.get("suggested_atol", 0.0), floor)


@functools.cache
def all_cases() -> tuple[Case, ...]:
    """Every case under ROOT and in ROOT_next beside it, by name; none where the folders do not exist."""
    folders = ROOT, ROOT.with_name(f"{ROOT.name}_next")
    return tuple(Case(path.parent) for folder in folders for path in sorted(folder.glob("**/case.json")))


def cases(group: str, prefix: str = "") -> list[Case]:
    """The cases of one group (the letter in case.json) whose name starts with `prefix`."""
    return [case for case in all_cases() if case.info["group"] == group and case.name.startswith(prefix)]
