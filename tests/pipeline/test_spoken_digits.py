"""Spoken digits as a folder of clips: splits by recording and by speaker, and joined clips."""

import csv
import wave
import zipfile

import numpy as np
import pytest

from kerasline.pipeline.recipes.spoken_digits import MOST_DIGITS, WORDS, write_digits

SAMPLES = 400  # of each recording


@pytest.fixture
def recordings(tmp_path):
    """Two speakers, three takes of each digit. A recording of digit d by speaker s is the constant 100 s + d."""
    with zipfile.ZipFile(tmp_path / "recordings.zip", "w") as archive:
        for number, speaker in enumerate(["ada", "bob"]):
            for digit in range(10):
                with wave.open(str(tmp_path / "one.wav"), "wb") as file:
                    file.setparams((1, 2, 8000, 0, "NONE", "not compressed"))
                    file.writeframes(np.full(SAMPLES, 100 * number + digit, "<i2").tobytes())
                for take in (0, 5, 10):
                    archive.write(tmp_path / "one.wav", f"recordings/{digit}_{speaker}_{take}.wav")
    return tmp_path / "recordings.zip"


def clips(folder):
    with (folder / "clips.csv").open() as file:
        for row in csv.DictReader(file):
            with wave.open(str(folder / "clips" / row["path"])) as sound:
                yield row, np.frombuffer(sound.readframes(sound.getnframes()), "<i2")


def test_each_recording_is_a_clip_in_the_split_of_its_take(recordings, tmp_path):
    write_digits(recordings, tmp_path / "out")
    found = list(clips(tmp_path / "out"))
    assert len(found) == 60
    assert {split: sum(row["split"] == split for row, _ in found) for split in ("train", "eval", "test")} == {
        "train": 20,
        "eval": 20,
        "test": 20,
    }
    for row, samples in found:
        assert (samples == 100 * (row["speaker"] == "bob") + WORDS.index(row["label"])).all()


def test_unheard_speaker_is_in_the_test_split_alone(recordings, tmp_path):
    write_digits(recordings, tmp_path / "out", unheard="bob")
    speakers = {(row["split"] == "test", row["speaker"]) for row, _ in clips(tmp_path / "out")}
    assert speakers == {(True, "bob"), (False, "ada")}


def test_joined_clips_say_their_labels_with_pauses(recordings, tmp_path):
    write_digits(recordings, tmp_path / "out", joined=40)
    write_digits(recordings, tmp_path / "again", joined=40)
    assert (tmp_path / "out" / "clips.csv").read_text() == (tmp_path / "again" / "clips.csv").read_text()
    lengths = set()
    for row, samples in clips(tmp_path / "out"):
        words = row["label"].split()
        values = [100 * (row["speaker"] == "bob") + WORDS.index(word) for word in words]
        spoken = [value for value in values if value]  # the digit 0 of the first speaker is as silent as a pause
        assert np.count_nonzero(samples) == SAMPLES * len(spoken)
        changes = samples[np.flatnonzero(np.diff(samples, prepend=0))]
        assert [value for value in changes if value] == spoken
        assert int(row["digits"]) == len(words)
        lengths.add(len(words))
    assert lengths == set(range(1, MOST_DIGITS + 1))
