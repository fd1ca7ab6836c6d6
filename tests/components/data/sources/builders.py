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
