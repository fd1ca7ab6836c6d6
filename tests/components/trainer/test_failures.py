"""Operations that fail during training: the message has the step, the layer, the column and TensorFlow's cause."""

import keras
import pytest
import tensorflow as tf

import kerasline as kl


@keras.saving.register_keras_serializable("failures")
class ParseNumber(keras.layers.Layer):
    def call(self, texts):
        return tf.strings.to_number(texts)

    def compute_output_spec(self, texts):
        return keras.KerasTensor(texts.shape, "float32")


@keras.saving.register_keras_serializable("failures")
class TooFewColumns(keras.layers.Layer):
    """Slices a column that rows of small numbers do not have."""

    def call(self, x):
        width = tf.cast(tf.reduce_max(x) + 2, tf.int32)
        return tf.reshape(x, [-1, width])[:, :1] if isinstance(x, tf.Tensor) else x[:, :1]

    def compute_output_spec(self, x):
        return keras.KerasTensor((x.shape[0], 1), "float32")


def preprocessing():
    fare, miles = keras.Input((1,), name="fare", dtype="string"), keras.Input((1,), name="miles")
    outputs = {"fare": ParseNumber(name="parse_fare")(fare), "miles": keras.layers.Rescaling(1.0)(miles)}
    return keras.Model({"fare": fare, "miles": miles}, outputs)


def build_model(inputs, hp):
    x = keras.layers.Concatenate()(list(inputs.values()))
    x = TooFewColumns(name="odd")(x) if hp.get("odd") else x
    model = keras.Model(inputs, keras.layers.Dense(1)(x))
    model.compile("sgd", "mse")
    return model


def train(folder, columns, **hyperparameters):
    examples = kl.InMemoryExampleGen(columns, splits={"train": 1}).execute(folder / "examples").examples
    prepared = kl.Transform(examples, function=preprocessing, label="tip").execute(folder / "prepared").preprocessing
    builder = kl.ModelBuilder(prepared, function=build_model, hyperparameters=hyperparameters)
    model = builder.execute(folder / "model").model
    trainer = kl.Trainer(examples, prepared, model, tensorboard=False, jit_compile=False, shuffle=False)
    return trainer.execute(folder / "trained")


def test_bad_value_is_named_with_its_layer_and_column(tmp_path):
    columns = {"fare": ["1.5"] * 50 + ["oops"], "miles": [1.0] * 51, "tip": [1.0] * 51}
    with pytest.raises(
        kl.KeraslineError, match=r"layer 'parse_fare' \(column 'fare'\): .*convert string: oops"
    ) as caught:
        train(tmp_path, columns)
    assert "steps 1 to 2 (epoch 1)" in str(caught.value) and "Graph execution error" not in str(caught.value)


def test_failing_operation_of_the_model_is_named_with_its_step_and_layer(tmp_path):
    columns = {"fare": ["0"] * 64, "miles": [0.0] * 32 + [1.0] * 32, "tip": [1.0] * 64}
    with pytest.raises(kl.KeraslineError, match=r"layer 'odd' \(columns 'fare', 'miles'\): Input to reshape") as caught:
        train(tmp_path, columns, odd=True)
    assert str(caught.value).startswith("step") and "(epoch 1)" in str(caught.value)
