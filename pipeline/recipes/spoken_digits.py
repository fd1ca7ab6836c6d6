"""Write the Free Spoken Digit Dataset as a folder of clips with a table, for the recipes and the guide of speech.

    python -m kerasline.pipeline.recipes.spoken_digits recordings.zip digits --joined 8000

The recordings, `recordings/{digit}_{speaker}_{take}.wav`, are those of github.com/Jakobovski/free-spoken-digit-dataset.
Without `--joined`, each is a clip. With it, a clip is one to five digits of a speaker with short pauses between them.
The split is by recording: takes 0 to 4 are for testing, as in the data set's own split, and 5 to 9 for evaluation in
training. With `--unheard theo` all clips of this speaker are for testing, and those of the others are not.
"""

from __future__ import annotations

import argparse
import csv
import io
import wave
import zipfile
from pathlib import Path

import numpy as np

WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
COLUMNS = ["path", "label", "speaker", "digits", "split"]
RATE = 8000
TEST_TAKES, EVAL_TAKES = range(5), range(5, 10)
MOST_DIGITS, PAUSE_SECONDS = 5, (0.05, 0.3)
SHARES = {"train": 0.8, "eval": 0.1, "test": 0.1}  # of the joined clips

Recording = tuple[int, np.ndarray]  # the digit, and its samples, int16
Clips = list[tuple[str, str, list[Recording]]]  # split, speaker, and what is said


def write_digits(recordings: Path, folder: Path, joined: int = 0, unheard: str | None = None, seed: int = 0) -> None:
    """Write WAV files to `folder/clips`, and their words, speaker and split to `folder/clips.csv`.

    Args:
        recordings: the zip file.
        folder: a folder, which is made if it does not exist.
        joined: number of clips of several digits, or 0 for the recordings as they are.
        unheard: speaker of the test split, or None for other recordings of all speakers.
        seed: seed of the choice of digits.
    """
    clips: Clips = []
    random = np.random.default_rng(seed)
    with zipfile.ZipFile(recordings) as archive:
        spoken = _recordings(archive, unheard)
    for split, speakers in spoken.items():
        if not joined:
            clips += [(split, speaker, [one]) for speaker, found in speakers.items() for one in found]
            continue
        for _ in range(round(SHARES[split] * joined)):
            speaker = str(random.choice(list(speakers)))
            chosen = random.integers(len(speakers[speaker]), size=random.integers(1, MOST_DIGITS + 1))
            clips.append((split, speaker, [speakers[speaker][number] for number in chosen]))
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    with (folder / "clips.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for number, (split, speaker, said) in enumerate(clips):
            name = f"{number:05}.wav"
            _write_wav(folder / "clips" / name, _joined([samples for _, samples in said], random))
            table.writerow([name, " ".join(WORDS[digit] for digit, _ in said), speaker, len(said), split])


def _recordings(archive: zipfile.ZipFile, unheard: str | None) -> dict[str, dict[str, list[Recording]]]:
    """Return the recordings by split and speaker."""
    found: dict[str, dict[str, list[Recording]]] = {split: {} for split in SHARES}
    for name in sorted(name for name in archive.namelist() if name.endswith(".wav")):
        digit, speaker, take = Path(name).stem.split("_")
        is_test = int(take) in TEST_TAKES if unheard is None else speaker == unheard
        split = "test" if is_test else "eval" if int(take) in EVAL_TAKES else "train"
        with wave.open(io.BytesIO(archive.read(name))) as file:
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        found[split].setdefault(speaker, []).append((int(digit), samples))
    return found


def _joined(parts: list[np.ndarray], random: np.random.Generator) -> np.ndarray:
    """Return sounds one after the other, with pauses of a random length between them."""
    pieces = [parts[0]]
    for part in parts[1:]:
        pieces += [np.zeros(int(random.uniform(*PAUSE_SECONDS) * RATE), np.int16), part]
    return np.concatenate(pieces)


def _write_wav(path: Path, samples: np.ndarray) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples.astype("<i2").tobytes())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recordings", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--joined", type=int, default=0)
    parser.add_argument("--unheard")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    write_digits(**vars(arguments))


if __name__ == "__main__":
    main()
