"""TFDS builders for the tests."""

import numpy as np
import tensorflow_datasets as tfds


class Squares(tfds.core.BeamBasedBuilder):
    """Prepared with Beam: numbers and their squares, nested and in lists."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {
            "number": np.int64,
            "more": {"square": np.float32, "words": tfds.features.Sequence(tfds.features.Text())},
            "pairs": tfds.features.Sequence({"left": np.int64, "right": np.int64}),
        }
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager, pipeline):
        return {"train": self._generate_examples(pipeline)}

    def _generate_examples(self, pipeline):
        import apache_beam as beam

        return pipeline | beam.Create(range(100)) | beam.Map(example)


def example(number):
    return number, {
        "number": number,
        "more": {"square": number**2, "words": ["word"] * (number % 3)},
        "pairs": {"left": [number, number], "right": [1, 2]},
    }


class Clips(tfds.core.GeneratorBasedBuilder):
    """Sound, pictures of varying size, and classes, one and several in a row."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        kinds = tfds.features.ClassLabel(names=["high", "low"])
        features = {
            "number": np.int64,
            "audio": tfds.features.Audio(sample_rate=8000),
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
            "label": kinds,
            "objects": tfds.features.Sequence({"kind": kinds}),
        }
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for number in range(4):
            yield number, clip(number)


def clip(number):
    return {
        "number": number,
        "audio": (np.arange(800 * (number + 1)) % 50 * 100).astype(np.int64),
        "image": np.full((number + 2, 3, 3), 40 * number, np.uint8),
        "label": ["high", "low"][number % 2],
        "objects": {"kind": ["low"] * number},
    }


class Torn(tfds.core.GeneratorBasedBuilder):
    """Three pictures, of which the second lacks its end. With `size` all have one size, and TFDS decodes them."""

    VERSION = tfds.core.Version("1.0.0")
    SIZE: tuple[int | None, int | None] = (None, None)

    def _info(self):
        features = {"number": np.int64, "image": tfds.features.Image(shape=(*self.SIZE, 3))}
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        import tensorflow as tf

        whole = tf.io.encode_png(np.arange(1200, dtype=np.uint8).reshape(20, 20, 3)).numpy()
        for number in range(3):
            yield number, {"number": number, "image": whole[:-60] if number == 1 else whole}


class TornTensors(Torn):
    """Pictures of one size, of which the second lacks its end."""

    SIZE = (20, 20)


class Objects(tfds.core.GeneratorBasedBuilder):
    """Images of varying size with boxes of objects, as those of Pascal VOC."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        objects = {"bbox": tfds.features.BBoxFeature(), "label": tfds.features.ClassLabel(names=["cat", "dog"])}
        features = {"image": tfds.features.Image(), "objects": tfds.features.Sequence(objects)}
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        boxes = [tfds.features.BBox(ymin=0.5, xmin=0.25, ymax=1.0, xmax=0.75), tfds.features.BBox(0.0, 0.0, 0.5, 1.0)]
        for number, size in enumerate([(20, 40), (10, 80)]):
            objects = [{"bbox": box, "label": kind} for box, kind in zip(boxes, ["dog", "cat"])][: 2 - number]
            yield number, {"image": np.full((*size, 3), 7, np.uint8), "objects": objects}


class Garments(tfds.core.GeneratorBasedBuilder):
    """Grey images of ten classes, in the form of Fashion-MNIST: the direction and width of stripes are the class."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        label = tfds.features.ClassLabel(names=[f"garment {number}" for number in range(10)])
        features = {"image": tfds.features.Image(shape=(28, 28, 1)), "label": label}
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(400, 0), "test": self._generate_examples(60, 1)}

    def _generate_examples(self, rows, seed):
        random = np.random.default_rng(seed)
        for number in range(rows):
            image, label = random.integers(0, 60, (28, 28, 1), np.uint8), number % 10
            stripes = np.arange(28) // (1 + label % 5) % 2 * 150
            image += stripes.reshape((28, 1, 1) if label < 5 else (1, 28, 1)).astype(np.uint8)
            yield number, {"image": image, "label": label}
