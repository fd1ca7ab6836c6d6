"""Exporter: a SavedModel that takes raw features, preprocessing inside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.artifacts import Model, Preprocessing, SavedModel
from components.base import Component, Context, Input, Output

MANIFEST = "kerasline.json"


class Exporter(Component):
    """Joins preprocessing and model into one SavedModel.

    Its signature `serving_default` takes the raw features by name, any number of rows, in the
    form of the preprocessing's inputs: a missing number is NaN, a missing text "". It gives
    the model's outputs by name, and, where the classes have names and there is one output with a
    score for each, `label`: the name of the class of the highest score. Its signature
    `transform_features` takes the same and gives what the preprocessing makes of it.
    """

    LIBRARIES = ("tensorflow", "keras")

    preprocessing: Input[Preprocessing]
    model: Input[Model]
    saved_model: Output[SavedModel]

    def run(self, inputs: Any, outputs: Any, context: Context) -> Mapping[str, Any]:
        import keras
        import tensorflow as tf

        from components.evaluation.compiled import compiled_losses, output_names

        features = inputs.preprocessing.load_features()
        model = inputs.model.load()
        names = inputs.preprocessing.facts["class_names"]
        names_of_outputs = output_names(model)
        scored = (
            isinstance(names, list) and len(names_of_outputs) == 1 and model.outputs[0].shape[-1] == len(names)
        )

        def serve(raw: dict[str, Any]) -> dict[str, Any]:
            result = model(features(raw, training=False), training=False)
            flat = dict(zip(names_of_outputs, tf.nest.flatten(result)))
            if scored:
                best = tf.argmax(flat[names_of_outputs[0]], axis=-1)
                flat["label"] = tf.gather(tf.constant(names), best)
            return flat

        signature = {
            name: tf.TensorSpec((None, *tensor.shape[1:]), tensor.dtype, name=name)
            for name, tensor in features.input.items()
        }
        archive = keras.export.ExportArchive()
        archive.track(features)
        archive.track(model)
        archive.add_endpoint("serving_default", serve, input_signature=[signature])
        archive.add_endpoint(
            "transform_features", lambda raw: dict(features(raw, training=False)), input_signature=[signature]
        )
        archive.write_out(str(outputs.saved_model.path), verbose=False)
        outputs.saved_model.write_json(MANIFEST, {
            "inputs": {n: {"dtype": s.dtype.name, "shape": s.shape.as_list()} for n, s in signature.items()},
            "outputs": [*names_of_outputs, *(["label"] if scored else [])],
            "class_names": names,
            "from_logits": {name: loss.from_logits for name, loss in compiled_losses(model).items()},
        })  # fmt: skip
        size = sum(p.stat().st_size for p in outputs.saved_model.path.rglob("*") if p.is_file())
        return {"inputs": len(signature), "megabytes": round(size / 1e6, 2)}
