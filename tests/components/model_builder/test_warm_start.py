"""Weights come from earlier models and from disk, also those of nested models."""

import keras
import numpy as np
import pytest

from kerasline.components.core.errors import ParameterError
from kerasline.components.model_builder.warm_start import load_weights, warm_start
from kerasline.components.models.freezing import enable_lora


def backbone(seed: int, name: str = "backbone") -> keras.Model:
    keras.utils.set_random_seed(seed)
    x = keras.Input((4,))
    return keras.Model(x, keras.layers.Dense(3, name="second")(keras.layers.Dense(5, name="first")(x)), name=name)


def classifier(inner: keras.Model, units: int = 2) -> keras.Model:
    x = keras.Input((4,), name="x")
    return keras.Model({"x": x}, keras.layers.Dense(units, name="head")(inner(x)))


def kernels(model: keras.Model) -> list[np.ndarray]:
    return [np.asarray(layer.kernel) for layer in (model.get_layer("first"), model.get_layer("second"))]


def assert_same_kernels(one: keras.Model, other: keras.Model) -> None:
    for a, b in zip(kernels(one), kernels(other), strict=True):
        np.testing.assert_array_equal(a, b)


def test_nested_backbone_takes_the_weights_of_an_earlier_nested_backbone():
    old, new = backbone(1), backbone(2)
    assert warm_start(classifier(new, units=7), classifier(old), "matching") == "2 of 3 layers"
    assert_same_kernels(new, old)


def test_nested_backbone_takes_the_weights_of_a_backbone():
    old, new = backbone(1, "other"), backbone(2)
    assert warm_start(classifier(new), old, "matching") == "2 of 3 layers"
    assert_same_kernels(new, old)


def test_backbone_takes_the_weights_of_a_nested_backbone():
    old, new = backbone(1), backbone(2, "other")
    assert warm_start(new, classifier(old), "all") == "2 of 2 layers"
    assert_same_kernels(new, old)


def test_dict_maps_nested_models_and_layers_by_path():
    old, new = backbone(1, "encoder"), backbone(2)
    warm_start(classifier(new), classifier(old), {"backbone": "encoder"})
    assert_same_kernels(new, old)
    third = backbone(3)
    warm_start(classifier(third), classifier(old), {"backbone/first": "encoder/first"})
    np.testing.assert_array_equal(kernels(third)[0], kernels(old)[0])
    assert not np.array_equal(kernels(third)[1], kernels(old)[1])


def test_message_lists_few_of_many_layers():
    def deep(prefix: str) -> keras.Model:
        x = y = keras.Input((2,))
        for number in range(100):
            y = keras.layers.Dense(2, name=f"{prefix}_{number}")(y)
        return keras.Model(x, y)

    with pytest.raises(ParameterError, match="and 88 more") as caught:
        warm_start(deep("alpha"), deep("zzz"), "matching")
    assert len(str(caught.value)) < 400


def test_weights_file_fits_the_whole_model_or_a_nested_one(tmp_path):
    old = backbone(1)
    old.save_weights(tmp_path / "old.weights.h5")
    new = backbone(2)
    assert load_weights(new, str(tmp_path / "old.weights.h5")) == "all layers"
    assert_same_kernels(new, old)
    nested = backbone(3)
    load_weights(classifier(nested), {"backbone": str(tmp_path / "old.weights.h5")})
    assert_same_kernels(nested, old)
    with pytest.raises(ParameterError, match=r"do not fit the model: .*for a nested model pass \{\"backbone\": "):
        load_weights(classifier(backbone(4)), str(tmp_path / "old.weights.h5"))
    with pytest.raises(ParameterError, match="ModelBuilder.weights.bakbone: the model has no such layer; did you mean"):
        load_weights(classifier(backbone(4)), {"bakbone": str(tmp_path / "old.weights.h5")})


def test_preset_folder_of_keras_hub(tmp_path):
    keras_hub = pytest.importorskip("keras_hub", reason="needs keras-hub")
    sizes = {"vocabulary_size": 20, "num_layers": 1, "num_heads": 2, "hidden_dim": 8, "intermediate_dim": 8}
    old = keras_hub.models.BertBackbone(**sizes, max_sequence_length=6)
    old.save_to_preset(str(tmp_path / "preset"))
    new = keras_hub.models.BertBackbone(**sizes, max_sequence_length=6)
    outer = keras.Model(new.input, keras.layers.Dense(2, name="head")(new(new.input)["pooled_output"]))
    load_weights(outer, {new.name: str(tmp_path / "preset")})
    for one, other in zip(old.weights, new.weights, strict=True):
        np.testing.assert_array_equal(one, other)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ParameterError, match="is no KerasHub preset"):
        load_weights(outer, {new.name: str(tmp_path / "empty")})


def test_lora_reaches_a_shared_embedding_once():
    keras_hub = pytest.importorskip("keras_hub", reason="needs keras-hub")
    sizes = {"vocabulary_size": 20, "num_layers": 1, "num_heads": 2, "hidden_dim": 8, "intermediate_dim": 8}
    model = keras_hub.models.GPT2CausalLM(keras_hub.models.GPT2Backbone(**sizes, max_sequence_length=6))
    enable_lora(model, 2, [])
    assert any("lora" in variable.path for variable in model.trainable_variables)
