"""The Palmer penguins as a TFDS builder: the real data of the PyPI package `palmerpenguins`.

344 penguins of three species from the Palmer Archipelago, some with missing measurements.
Horst, Hill and Gorman, "palmerpenguins", 2020, doi:10.5281/zenodo.3960218, CC0.
"""

from __future__ import annotations

import csv
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from kerasline.components.core.errors import DataError

SPECIES = ["Adelie", "Chinstrap", "Gentoo"]
MEASUREMENTS = ["bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g"]


class PalmerPenguins(tfds.core.GeneratorBasedBuilder):
    """One split of 344 rows. A missing measurement is NaN, a missing text is empty."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        features: dict[str, Any] = {"species": tfds.features.ClassLabel(names=SPECIES)}
        features |= {name: tfds.features.Text() for name in ("island", "sex")}
        features |= {name: np.float32 for name in MEASUREMENTS}
        features["year"] = np.int64
        return tfds.core.DatasetInfo(
            builder=self,
            description=__doc__,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=None,
            homepage="https://allisonhorst.github.io/palmerpenguins/",
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {"train": self._generate_examples(_data_file())}

    def _generate_examples(self, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
        with path.open(encoding="utf-8", newline="") as file:
            for number, row in enumerate(csv.DictReader(file)):
                row = {name: "" if value == "NA" else value for name, value in row.items()}
                yield (
                    number,
                    {
                        "species": row["species"],
                        "island": row["island"],
                        "sex": row["sex"],
                        **{name: float(row[name] or "nan") for name in MEASUREMENTS},
                        "year": int(row["year"]),
                    },
                )


def _data_file() -> Path:
    """Return the CSV file of the package without importing the package, which would import pandas."""
    spec = importlib.util.find_spec("palmerpenguins")
    if spec is None or not spec.submodule_search_locations:
        raise DataError("the penguins' data is missing; pip install 'kerasline[penguins]'")
    return Path(spec.submodule_search_locations[0]) / "data" / "penguins.csv"
