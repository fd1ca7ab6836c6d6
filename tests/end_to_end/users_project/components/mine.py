"""The user's own modules, in a folder named as one of kerasline's."""

import keras


@keras.saving.register_keras_serializable("users")
class Kilometres(keras.layers.Layer):
    """Miles to kilometres."""

    def call(self, miles):
        return miles * 1.609344


def build_model(inputs, hp):
    fare = keras.layers.Dense(1, name="fare")(inputs["kilometres"])
    model = keras.Model(inputs, fare)
    model.compile(optimizer="adam", loss="mse")
    return model


def by_length(batch):
    return ["long" if miles > 5 else "short" for miles in batch["miles"].to_pylist()]
