"""Measure quality and time of the image recipes at full size, in one run each.

    python benchmarks/images.py detection --data bccd/BCCD
    python benchmarks/images.py clothes --data /usr/share/datasets/fashion-mnist --seeds 2
    python benchmarks/images.py image_generation --data /usr/share/datasets/fashion-mnist

`--set NODE.PARAM=VALUE` changes a run, such as `--set Trainer.epochs=2` for a short one.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.recipe_runs import run_recipe

METRICS = {
    "detection": ["boxes/ap", "boxes/ap_50", "boxes/ap_75"],
    "clothes": ["accuracy", "loss", "temperature", "calibration_error_before", "calibration_error"],
    "image_generation": ["features/frechet_distance", "features/kernel_distance", "classes/accuracy"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", choices=METRICS)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], dest="settings")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(arguments.seeds):
            data = blood_cells(arguments.data.resolve(), Path(folder)) if arguments.recipe == "detection" else None
            settings = data or [f"ExampleGen.input={arguments.data}"]
            settings += [f"ModelBuilder.seed={seed}", f"Trainer.seed={seed}", *arguments.settings]
            print(seed, json.dumps(run(arguments.recipe, settings, Path(folder))), flush=True)


def blood_cells(source: Path, folder: Path) -> list[str]:
    """Return the settings for BCCD, with its images linked into a folder for each of its own splits."""
    for split in ("train", "val", "test"):
        (folder / "images" / split).mkdir(parents=True, exist_ok=True)
        for name in (source / "ImageSets" / "Main" / f"{split}.txt").read_text().split():
            link = folder / "images" / split / f"{name}.jpg"
            if not link.exists():
                link.symlink_to(source / "JPEGImages" / f"{name}.jpg")
    return [
        f"ExampleGen.input={folder / 'images'}",
        f"ExampleGen.labels={source / 'Annotations'}",
        "ExampleGen.columns=null",
        "ExampleGen.bad_rows=quarantine",
        'ExampleGen.splits={"train": "train", "eval": "val", "test": "test"}',
        "Trainer.epochs=160",
        "ModelBuilder.hyperparameters.decay_steps=2080",
    ]


def run(recipe: str, settings: list[str], folder: Path) -> dict[str, float]:
    """Run a recipe. Return its metrics, and the seconds of the run and of Trainer."""
    nodes, seconds = run_recipe(recipe, folder / "root", settings)
    metrics = {**nodes["Trainer"]["metrics"], **nodes["Evaluator"]["metrics"]}
    found = {name: metrics.get(name) for name in METRICS[recipe]}
    return found | {"seconds": round(seconds), "Trainer": round(nodes["Trainer"]["seconds"])}


if __name__ == "__main__":
    main()
