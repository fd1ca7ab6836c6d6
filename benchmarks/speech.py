"""Measure the speech recipes, by runs from sound files to answers.

    python benchmarks/speech.py keywords recordings.zip [--steps 2000] [--unheard theo lucas ...]
    python benchmarks/speech.py recognition recordings.zip [--steps 3000] [--unheard theo]
    python benchmarks/speech.py asterisk sounds --manifest manifest.tsv [--steps 6000]
    python benchmarks/speech.py synthesis sounds --manifest manifest.tsv [--steps 8000] [--keep folder]

The first two take the Free Spoken Digit Dataset. `keywords` leaves out each speaker in turn, and prints the accuracy on
the clips of that speaker, their mean, and that of the split by recording, whose speakers are known. `recognition`
prints the word error rate on one to five joined digits of known speakers and of an unheard one.

The others take clips of one voice: a folder, such as that of Debian's package asterisk-core-sounds-en-wav, and a table
without a header of file, seconds and text, separated by tabs. No text is in two splits. `asterisk` prints the error
rates of the recogniser. `synthesis` prints the mel-cepstral distortion between synthesised and real test clips, beside
that between real clips of different texts. Both print those of pocketsphinx on the same clips, if it is installed.
`--keep` writes synthesised and real clips to a folder.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import re
import shutil
import statistics
import sys
import tempfile
import wave
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.recipe_runs import RecipeRun, run_recipe
from kerasline.components.core.artifacts import Examples, Predictions
from kerasline.pipeline.recipes.spoken_digits import WORDS, write_digits

SPEAKERS = ["george", "jackson", "lucas", "nicolas", "theo", "yweweler"]
JOINED = 8000
LONGEST_SECONDS = 30  # longer clips would be batches of their own
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


def run(recipe: str, folder: str, last: str, settings: dict[str, Any]) -> RecipeRun:
    """Run a recipe on `folder/clips` and `folder/clips.csv`."""
    settings = {
        "ExampleGen.input": f"{folder}/clips",
        "ExampleGen.labels": f"{folder}/clips.csv",
        "ExampleGen.splits": '{"train": 8, "eval": 1, "test": 1}',
        **settings,
    }
    return run_recipe(recipe, Path(folder, "root"), [f"{name}={value}" for name, value in settings.items()], last=last)


def metrics(recipe: str, recordings: Path, steps: int, unheard: str | None) -> dict[str, Any]:
    """Return the metrics of Evaluator after a run on spoken digits, and print them."""
    with tempfile.TemporaryDirectory() as folder:
        write_digits(recordings, Path(folder), JOINED if recipe == "speech_recognition" else 0, unheard)
        settings = {
            "ExampleGen.columns": json.dumps(COLUMNS[recipe]),
            "ExampleGen.split_by": "column",
            "ExampleGen.split_key": '["split"]',
            "Trainer.steps": steps,
            "ModelBuilder.hyperparameters.decay_steps": steps,
            **SETTINGS[recipe],
        }
        nodes, seconds = run(recipe, folder, "Evaluator", settings)
    found = {name: nodes["Evaluator"]["metrics"][name] for name in MEASURED[recipe]}
    values = ", ".join(f"{name} {value:.3f}" for name, value in found.items())
    speaker = f"{unheard}, unheard" if unheard else "known speakers"
    print(f"{speaker}: {values}; training {nodes['Trainer']['seconds']:.0f} s, all {seconds:.0f} s", flush=True)
    return found


def one_voice(recipe: str, sounds: Path, manifest: Path, steps: int, keep: Path | None) -> None:
    """Run a recipe on clips of one voice, and print its metrics on the test clips."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "clips").mkdir()
        with manifest.open() as lines, Path(folder, "clips.csv").open("w", newline="") as table:
            writer = csv.writer(table)
            writer.writerow(["path", "text"])
            for name, duration, text in (line.rstrip("\n").split("\t") for line in lines):
                if float(duration) > LONGEST_SECONDS:
                    continue
                target = Path(folder, "clips", name)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(sounds / name, target)
                writer.writerow([name, text if recipe == "speech_synthesis" else words(text)])
        settings = {
            "ExampleGen.columns": '["content", "text"]',
            "ExampleGen.split_by": "group",
            "ExampleGen.split_key": '["text"]',
            "Trainer.steps": steps,
            "ModelBuilder.hyperparameters.decay_steps": steps,
        }
        nodes, seconds = run(recipe, folder, "BulkInferrer", settings)
        clips = Examples(nodes["ExampleGen"]["outputs"]["examples"]).read("test").to_pydict()
        answers = Predictions(nodes["BulkInferrer"]["outputs"]["predictions"]).read("test").to_pydict()
        found = nodes["Evaluator"]["metrics"]
    print(f"{len(clips['text'])} test clips; training {nodes['Trainer']['seconds']:.0f} s, all {seconds:.0f} s")
    real = recognised(clips["content"])
    if recipe == "speech_recognition":
        print(f"recogniser: WER {found['transcript/wer']:.3f}, CER {found['transcript/cer']:.3f}")
        print(f"pocketsphinx: {error_rates(clips['text'], real)}")
        return
    distortion = found["sound_bytes/mel_cepstral_distortion"]
    mismatched = mismatched_distortion(clips["content"])
    print(f"mel-cepstral distortion of synthesised and real clips: {distortion:.2f} dB")
    print(f"of real clips of different texts: {mismatched:.2f} dB, so {1 - distortion / mismatched:.0%} below")
    print(f"pocketsphinx on real clips: {error_rates(clips['text'], real)}")
    print(f"pocketsphinx on synthesised clips: {error_rates(clips['text'], recognised(answers['sound_bytes']))}")
    for number, (text, content, answer) in enumerate(zip(clips["text"], clips["content"], answers["sound_bytes"])):
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            for kind, file in {"real.wav": content, "synthesised.wav": answer, "text.txt": text.encode()}.items():
                (keep / f"{number:03}_{kind}").write_bytes(file)


def mismatched_distortion(files: list[bytes]) -> float:
    """Return the mean distortion between each clip and the next one."""
    from kerasline.components.metrics.sound import distortions, mel_cepstra

    coefficients, lengths = mel_cepstra(files)
    following = np.roll(np.arange(len(files)), -1)
    return float(np.nanmean(distortions(coefficients, lengths, coefficients[following], lengths[following])))


def words(text: str) -> str:
    """Return the words of a text in lower case, digits by their names, without punctuation."""
    named = re.sub("[0-9]", lambda digit: f" {WORDS[int(digit[0])]} ", text.lower())
    return " ".join(re.sub("[^a-z']", " ", named).split())


def recognised(files: list[bytes]) -> list[str] | None:
    """Return the texts that pocketsphinx recognises in sound files, or None if it is not installed."""
    try:
        from pocketsphinx import Decoder
    except ImportError:
        return None
    from kerasline.components.data.media_decoding import SoundForm, decode_sound

    decoder, texts = Decoder(samprate=16000, loglevel="FATAL"), []
    for file in files:
        with wave.open(io.BytesIO(decode_sound(file, SoundForm(16000, 1))[0])) as sound:
            samples = np.frombuffer(sound.readframes(sound.getnframes()), "<i2")
        decoder.start_utt()
        decoder.process_raw(np.pad(samples, 3200).tobytes(), full_utt=True)
        decoder.end_utt()
        texts.append(decoder.hyp().hypstr if decoder.hyp() else "")
    return texts


def error_rates(texts: list[str], answers: list[str] | None) -> str:
    if answers is None:
        return "not installed"
    import jiwer

    references = [words(text) for text in texts]
    return f"WER {jiwer.wer(references, answers):.3f}, CER {jiwer.cer(references, answers):.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=["keywords", "recognition", "asterisk", "synthesis"])
    parser.add_argument("recordings", type=Path)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--unheard", nargs="*")
    parser.add_argument("--manifest", type=Path)
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    if options.task in ("asterisk", "synthesis"):
        if options.manifest is None:
            parser.error(f"{options.task} needs --manifest")
        recipe, steps = {"asterisk": ("speech_recognition", 6000), "synthesis": ("speech_synthesis", 8000)}[
            options.task
        ]
        one_voice(recipe, options.recordings, options.manifest, options.steps or steps, options.keep)
    elif options.task == "keywords":
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
