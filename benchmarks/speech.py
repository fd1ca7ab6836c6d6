"""Measure the speech recipes on the Free Spoken Digit Dataset.

    python benchmarks/speech.py keywords recordings.zip [--steps 2000] [--unheard theo lucas ...]
    python benchmarks/speech.py recognition recordings.zip [--steps 3000] [--unheard theo]

`keywords` leaves out each speaker in turn, and prints the accuracy on the clips of that speaker, their mean, and that
of the split by recording, whose speakers are known. `recognition` prints the word error rate on one to five joined
digits of known speakers and of an unheard one. Each line is a run of the recipe from sound files to Evaluator.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from kerasline.pipeline.recipes.spoken_digits import write_digits

HOUSE = Path(__file__).resolve().parent.parent
SPEAKERS = ["george", "jackson", "lucas", "nicolas", "theo", "yweweler"]
JOINED = 8000
COLUMNS = {
    "keywords": ["content", "label", "speaker"],
    "speech_recognition": {"content": "content", "text": "label", "speaker": "speaker"},
}

SETTINGS: dict[str, dict[str, Any]] = {
    "keywords": {},
    "speech_recognition": {
        "ModelBuilder.hyperparameters.units": 96,
        "ModelBuilder.hyperparameters.blocks": 3,
        "Trainer.frames_a_batch": 6000,
    },
}
MEASURED = {"keywords": ["accuracy"], "speech_recognition": ["transcript/wer", "transcript/cer"]}


def metrics(recipe: str, recordings: Path, steps: int, unheard: str | None) -> dict[str, Any]:
    """Return the metrics of Evaluator after a run of a recipe, and print them."""
    with tempfile.TemporaryDirectory() as folder:
        write_digits(recordings, Path(folder), JOINED if recipe == "speech_recognition" else 0, unheard)
        settings = {
            "ExampleGen.input": f"{folder}/clips",
            "ExampleGen.labels": f"{folder}/clips.csv",
            "ExampleGen.columns": json.dumps(COLUMNS[recipe]),
            "ExampleGen.splits": '{"train": 8, "eval": 1, "test": 1}',
            "ExampleGen.split_by": "column",
            "ExampleGen.split_key": '["split"]',
            "Trainer.steps": steps,
            "ModelBuilder.hyperparameters.decay_steps": steps,
            **SETTINGS[recipe],
        }
        arguments = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
        command = [sys.executable, str(HOUSE / "run_pipeline.py"), "run", recipe, "--to", "Evaluator"]
        command += ["--root", f"{folder}/root", "--json", f"{folder}/summary.json", *arguments]
        clock = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - clock
        nodes = {node["name"]: node for node in json.loads(Path(folder, "summary.json").read_text())["nodes"]}
    found = {name: nodes["Evaluator"]["metrics"][name] for name in MEASURED[recipe]}
    values = ", ".join(f"{name} {value:.3f}" for name, value in found.items())
    speaker = f"{unheard}, unheard" if unheard else "known speakers"
    print(f"{speaker}: {values}; training {nodes['Trainer']['seconds']:.0f} s, all {seconds:.0f} s", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=["keywords", "recognition"])
    parser.add_argument("recordings", type=Path)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--unheard", nargs="*")
    options = parser.parse_args()
    if options.task == "keywords":
        steps, speakers = options.steps or 2000, SPEAKERS if options.unheard is None else options.unheard
        found = [metrics("keywords", options.recordings, steps, speaker)["accuracy"] for speaker in speakers]
        if found:
            print(f"mean of {len(found)} unheard speakers: {statistics.mean(found):.3f}")
        metrics("keywords", options.recordings, steps, None)
    else:
        steps, speakers = options.steps or 3000, ["theo"] if options.unheard is None else options.unheard
        for speaker in [None, *speakers]:
            metrics("speech_recognition", options.recordings, steps, speaker)


if __name__ == "__main__":
    main()
