"""A row's result does not depend on the other rows of its batch, for every layer."""

import importlib.util
import io

import keras
import numpy as np
import pytest
from PIL import Image
from scipy.io import wavfile

from kerasline import layers

GENERATOR = np.random.default_rng(0)
NUMBERS = GENERATOR.normal(size=(12, 3)).astype("float32") * [1, 1000, 1e-3]  # neighbours of very different sizes
TEXTS = np.array([["red"], ["green blue"], [""], ["red red blue"], ["grey"], ["green"]] * 2, object)
POWER = np.square(GENERATOR.normal(size=(12, 4, 5)).astype("float32")) * 10.0 ** np.arange(-6, 6)[:, None, None]


def wav(seed: int) -> bytes:
    buffer = io.BytesIO()
    wavfile.write(buffer, 8000, np.random.default_rng(seed).integers(-9999, 9999, 100 + 50 * seed, "int16"))
    return buffer.getvalue()


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (8 + seed, 9, 3), "uint8")
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


SOUNDS = np.array([[wav(seed)] for seed in range(12)], object)
IMAGES = np.array([[png(seed)] for seed in range(12)], object)
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "re", "##d", "green", "blue"]
TIMES = np.arange(12).reshape(-1, 1) * 100_000_007

CASES = {
    "AudioDecoding": (layers.AudioDecoding(400, 8000), [SOUNDS]),
    "BagOfWords": (layers.BagOfWords(), [TEXTS]),
    "BucketIds": (layers.BucketIds(4), [NUMBERS]),
    "BucketsPerKey": (layers.BucketsPerKey(3), [NUMBERS[:, :1], TEXTS]),
    "CachedAttention": (layers.CachedAttention(2, 4), [NUMBERS[:, :, None], NUMBERS[:, ::-1, None]]),
    "ClassIndex": (layers.ClassIndex(), [TEXTS]),
    "Cross": (layers.Cross(), [TEXTS, TEXTS[::-1]]),
    "DateTimeParts": (layers.DateTimeParts(["hour", "weekday"], source="s"), [TIMES]),
    "DiffusionNoise": (layers.DiffusionNoise(), [POWER[:, :, :1], TIMES]),
    "DocumentSteps": (layers.DocumentSteps(), [np.arange(36).reshape(12, 3) % 5]),
    "FrequencyLookup": (layers.FrequencyLookup(), [TEXTS]),
    "ImageDecoding": (layers.ImageDecoding((4, 4)), [IMAGES]),
    "Imputation": (layers.Imputation(), [NUMBERS]),
    "LengthMask": (layers.LengthMask(), [POWER, np.arange(12) % 5]),
    "LengthRegulation": (layers.LengthRegulation(), [POWER, np.arange(48).reshape(12, 4) % 5, np.zeros((12, 9, 1))]),
    "Lengths": (layers.Lengths(), [np.where(NUMBERS > 500, np.nan, NUMBERS)]),
    "LogMel": (layers.LogMel(8000, 10, window=64), [GENERATOR.normal(size=(12, 200)).astype("float32")]),
    "MinMaxScaling": (layers.MinMaxScaling(), [NUMBERS]),
    "MissingIndicator": (layers.MissingIndicator(), [NUMBERS]),
    "MonotonicAlignment": (layers.MonotonicAlignment(), [POWER, np.arange(12) % 5 + 1, np.arange(12) % 4 + 1]),
    "NGrams": (layers.NGrams(5), [np.arange(36).reshape(12, 3) % 5]),
    "PowerToDecibels": (layers.PowerToDecibels(), [POWER]),
    "PrincipalComponents": (layers.PrincipalComponents(2), [NUMBERS]),
    "QuantileClipping": (layers.QuantileClipping(0.1, 0.9), [NUMBERS]),
    "QuantileTransform": (layers.QuantileTransform(), [NUMBERS]),
    "RandomNoise": (layers.RandomNoise(), [NUMBERS]),
    "RandomSpeed": (layers.RandomSpeed(), [NUMBERS]),
    "RandomTimeShift": (layers.RandomTimeShift(), [NUMBERS]),
    "RandomWindow": (layers.RandomWindow(), [POWER[..., None], GENERATOR.uniform(size=(12, 2, 4)).astype("float32")]),
    "Resampling": (layers.Resampling(8000, 4000), [NUMBERS]),
    "RobustScaling": (layers.RobustScaling(), [NUMBERS]),
    "ScalingPerKey": (layers.ScalingPerKey(), [NUMBERS[:, :1], TEXTS]),
    "SegmentMask": (layers.SegmentMask(), [np.arange(36).reshape(12, 3) // 2 % 4]),
    "SignedLog1p": (layers.SignedLog1p(), [NUMBERS]),
    "SpecAugment": (layers.SpecAugment(), [POWER]),
    "TargetEncoding": (layers.TargetEncoding(), [TEXTS]),
    "TfIdf": (layers.TfIdf(), [TEXTS]),
    "TokenDropout": (layers.TokenDropout(0.5), [np.arange(36).reshape(12, 3)]),
    "Whitening": (layers.Whitening(), [NUMBERS]),
}
# Layers that take their inputs as arguments, not as a list.
SEVERAL = {"CachedAttention", "DiffusionNoise", "LengthRegulation", "MonotonicAlignment", "RandomWindow"}

if importlib.util.find_spec("tensorflow_text") and importlib.util.find_spec("sentencepiece"):
    WORD_PIECE = layers.WordPiece(vocabulary=PIECES, length=5)
    CASES |= {
        "Subwords": (layers.Subwords(top=20, length=9, algorithm="bpe"), [TEXTS]),
        "TokensToText": (layers.TokensToText(WORD_PIECE), [WORD_PIECE(TEXTS).numpy()]),
        "WordPiece": (WORD_PIECE, [TEXTS]),
    }


def test_every_layer_has_a_case():
    unneeded = set() if "Subwords" in CASES else {"Subwords", "TokensToText", "WordPiece"}
    assert set(CASES) == set(layers.__all__) - unneeded


@pytest.mark.parametrize("name", CASES)
def test_row_alone_equals_row_among_others(name):
    layer, arrays = CASES[name]
    if name == "TargetEncoding":
        layer.adapt(*arrays, label=np.arange(12.0))
    elif hasattr(layer, "new_state"):
        layer.adapt(*arrays)

    def results(rows) -> list[np.ndarray]:
        taken = [keras.ops.convert_to_tensor(array[rows]) for array in arrays]
        found = layer(*taken) if name in SEVERAL else layer(taken if len(taken) > 1 else taken[0])
        return [np.asarray(one) for one in (found if isinstance(found, (list, tuple)) else [found])]

    together, backwards = results(np.arange(12)), results(np.arange(12)[::-1])
    for place in range(12):
        for whole, reverse, alone in zip(together, backwards, results([place]), strict=True):
            for found in (alone[0], reverse[11 - place]):
                if whole.dtype == object:
                    np.testing.assert_array_equal(found, whole[place])
                else:
                    np.testing.assert_allclose(found, whole[place], rtol=1e-5, atol=1e-6)
