"""Models are loaded by other processes as they were saved."""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import keras
import numpy as np
import pytest

from kerasline.components.core import keras_files, user_code
from kerasline.components.core.errors import ArtifactError
from kerasline.components.models.freezing import enable_lora


@keras.saving.register_keras_serializable("tests")
class ModelWithKeywords(keras.Model):
    def __init__(self, **options):
        units = options.pop("units")
        super().__init__(**options)
        self.out = keras.layers.Dense(units)

    def call(self, x):
        return self.out(x)


@keras.saving.register_keras_serializable("tests")
class Subclassed(keras.Model):
    def __init__(self, units=3, **options):
        super().__init__(**options)
        self.units = units
        self.inner = keras.layers.Dense(units)
        self.out = keras.layers.Dense(1)

    def call(self, x):
        return self.out(self.inner(x))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def squared_error(y, z):
    return keras.ops.mean((y - z) ** 2)


USER_FILE = """
import keras

@keras.saving.register_keras_serializable()
class Tower(keras.layers.Layer):
    def __init__(self, units=4, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.first = keras.layers.Dense(units, name="first")
        self.second = keras.layers.Dense(units, name="second")

    def build(self, shape):
        self.first.build(shape)
        self.second.build((*shape[:-1], self.units))

    def call(self, x):
        return self.second(self.first(x))

    def get_config(self):
        return {**super().get_config(), "units": self.units}

@keras.saving.register_keras_serializable()
class Forgetful(Tower):
    def get_config(self):
        return keras.layers.Layer.get_config(self)

@keras.saving.register_keras_serializable()
class OwnCompile(keras.Model):
    def compile(self, optimizer="sgd", loss="mae", **options):
        super().compile(optimizer=optimizer, loss=loss, **options)

@keras.saving.register_keras_serializable()
class TwoOptimizers(keras.Model):
    def compile(self, first, second):
        super().compile(optimizer=first, loss="mse")
        self.second = second
"""


@pytest.fixture
def user_module(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(USER_FILE)
    return user_code.import_file(path)


def tower_model(layer, model_class=keras.Model):
    x = keras.Input((3,), name="x")
    return model_class(x, keras.layers.Dense(1, name="out")(layer(x)))


def saved_and_loaded(model, folder: Path) -> keras.Model:
    keras_files.save(model, folder / "model.keras")
    assert keras_files.difference_after_loading(folder / "model.keras", keras_files.contents(model)) is None
    return keras_files.load(folder / "model.keras")


def run_python(code: str, *arguments: str) -> str:
    """Run code in a process started from scratch that has imported nothing."""
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip().splitlines()[-1]


def test_fresh_process_imports_the_modules_that_register_classes(tmp_path, user_module, monkeypatch):
    (tmp_path / "helpers").mkdir()
    (tmp_path / "helpers" / "__init__.py").write_text("")
    (tmp_path / "helpers" / "layers.py").write_text(USER_FILE.replace("Tower", "Helper"))
    monkeypatch.syspath_prepend(str(tmp_path))
    from helpers.layers import Helper  # type: ignore[import-not-found]

    from kerasline import layers

    x = keras.Input((3,), name="x")
    parts = [user_module.Tower()(x), Helper()(x), layers.SignedLog1p()(x)]
    model = keras.Model(x, keras.layers.Concatenate()(parts))
    keras_files.save(model, tmp_path / "model.keras")
    code = """
import json, sys
from pathlib import Path
from kerasline.components.core import keras_files
model = keras_files.load(Path(sys.argv[1]))
print(json.dumps(model(__import__("numpy").ones((1, 3))).numpy().tolist()))
"""
    answer = json.loads(run_python(code, str(tmp_path / "model.keras")))
    np.testing.assert_allclose(answer, model(np.ones((1, 3))), rtol=1e-5)


def test_freezing_inside_a_custom_layer_survives(tmp_path, user_module):
    tower = user_module.Tower()
    model = tower_model(tower)
    tower.first.trainable = False
    model.compile("adam", "mse")
    loaded = saved_and_loaded(model, tmp_path)
    assert [v.path for v in loaded.trainable_variables] == [v.path for v in model.trainable_variables]
    assert len(loaded.trainable_variables) == 4
    before = [np.asarray(v) for v in loaded.layers[1].first.variables]
    loaded.fit(np.ones((4, 3)), np.ones((4, 1)), verbose=0)
    for value, variable in zip(before, loaded.layers[1].first.variables):
        np.testing.assert_array_equal(value, variable)


def test_lora_inside_a_custom_layer_survives(tmp_path, user_module):
    tower = user_module.Tower()
    model = tower_model(tower)
    tower.second.enable_lora(2, lora_alpha=3)
    model.compile("adam", "mse")
    loaded = saved_and_loaded(model, tmp_path)
    second = loaded.layers[1].second
    assert (second.lora_enabled, second.lora_rank, second.lora_alpha) == (True, 2, 3)
    assert [v.shape for v in loaded.trainable_variables] == [v.shape for v in model.trainable_variables]


def test_compile_arguments_of_an_own_compile_survive(tmp_path, user_module):
    model = tower_model(keras.layers.Dense(2), user_module.OwnCompile)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=3)
    model.compile(optimizer=keras.optimizers.Adam(0.037), loss=loss)
    loaded = saved_and_loaded(model, tmp_path)
    assert float(loaded.optimizer.learning_rate) == pytest.approx(0.037)
    assert loaded.loss.ignore_class == 3


@pytest.mark.parametrize("optimizer", [False, True])
def test_schedule_of_the_learning_rate_survives(tmp_path, optimizer):
    x = keras.Input((2,))
    model = keras.Model(x, keras.layers.Dense(1)(x))
    schedule = keras.optimizers.schedules.CosineDecay(0.0, 600, warmup_target=0.003, warmup_steps=30)
    model.compile(keras.optimizers.AdamW(schedule, weight_decay=0.01), "mse")
    keras_files.save(model, tmp_path / "m.keras")
    loaded = keras_files.load(tmp_path / "m.keras", optimizer=optimizer)
    assert loaded.get_compile_config() == model.get_compile_config()


def test_optimizer_state_survives_when_nothing_was_lost(tmp_path):
    model = tower_model(keras.layers.Dense(2))
    model.compile("adam", "mse")
    model.fit(np.ones((8, 3)), np.ones((8, 1)), batch_size=2, verbose=0)
    assert not saved_and_loaded(model, tmp_path).optimizer.built
    loaded = keras_files.load(tmp_path / "model.keras", optimizer=True)
    for one, other in zip(model.optimizer.variables, loaded.optimizer.variables, strict=True):
        np.testing.assert_array_equal(one, other)


def difference(model, folder: Path) -> str:
    keras_files.save(model, folder / "model.keras")
    found = keras_files.difference_after_loading(folder / "model.keras", keras_files.contents(model))
    assert found is not None
    assert "\n" not in found
    return found


def test_compile_arguments_that_cannot_be_restored_are_refused(tmp_path, user_module):
    model = tower_model(keras.layers.Dense(2), user_module.TwoOptimizers)
    model.compile("adam", "sgd")
    assert "get_compile_config" in difference(model, tmp_path)


def test_arguments_missing_from_get_config_are_refused(tmp_path, user_module):
    assert "get_config" in difference(tower_model(user_module.Forgetful(7)), tmp_path)


def test_argument_that_only_the_constructor_knows_is_refused(tmp_path):
    model = ModelWithKeywords(units=2)
    model(np.ones((2, 3), "float32"))
    model.compile("sgd", "mse")
    assert "KeyError: 'units'; each custom layer must" in difference(model, tmp_path)


def test_lambda_and_unregistered_function_as_loss_are_refused(tmp_path):
    model = tower_model(keras.layers.Dense(2))
    model.compile("adam", lambda y, z: keras.ops.mean((y - z) ** 2))
    assert "Keras does not load Python lambdas" in difference(model, tmp_path)
    model.compile("adam", squared_error)
    assert "squared_error is not registered with Keras" in difference(model, tmp_path)


@pytest.mark.parametrize("frozen", [False, True])
def test_sequential_and_subclassed_models_survive(tmp_path, frozen):
    dense = keras.layers.Dense(4, trainable=not frozen)
    layers = [keras.Input((3,)), dense, keras.layers.BatchNormalization(), keras.layers.Dense(1)]
    sequential = keras.Sequential(layers)
    sequential.compile(keras.optimizers.SGD(0.3, momentum=0.5), "mse", metrics=["mae"])
    subclassed = Subclassed(5)
    subclassed(np.ones((2, 3), "float32"))
    subclassed.inner.trainable = not frozen
    subclassed.compile("adam", "mse")
    for model in (sequential, subclassed):
        loaded = saved_and_loaded(model, tmp_path)
        assert len(loaded.trainable_variables) == len(model.trainable_variables)
        x = np.arange(6, dtype="float32").reshape(2, 3)
        np.testing.assert_allclose(loaded(x), model(x), rtol=1e-6)


def test_task_model_of_keras_hub_keeps_its_compile_arguments_and_lora(tmp_path):
    keras_hub = pytest.importorskip("keras_hub", reason="needs keras-hub")
    sizes = {"vocabulary_size": 20, "num_layers": 1, "num_heads": 2, "hidden_dim": 8, "intermediate_dim": 8}
    model = keras_hub.models.GPT2CausalLM(keras_hub.models.GPT2Backbone(**sizes, max_sequence_length=6))
    enable_lora(model, 2, [])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=0)
    model.compile(optimizer=keras.optimizers.Adam(0.0123), loss=loss)
    loaded = saved_and_loaded(model, tmp_path)
    assert float(loaded.optimizer.learning_rate) == pytest.approx(0.0123)
    assert loaded.loss.ignore_class == 0
    assert [v.shape for v in loaded.trainable_variables] == [v.shape for v in model.trainable_variables]


def test_python_lambda_is_refused(tmp_path):
    layer = keras.layers.Lambda(lambda x: x + 1, name="plus")
    assert difference(tower_model(layer), tmp_path).startswith("layer 'plus' is a Lambda layer")


def test_unregistered_layer_gets_advice(tmp_path):
    class Plain(keras.layers.Layer):
        def call(self, x):
            return x

    found = difference(tower_model(Plain()), tmp_path)
    assert found.startswith("Plain is not registered with Keras")


def test_layer_defined_inside_a_function_is_refused(tmp_path):
    @keras.saving.register_keras_serializable()
    class Local(keras.layers.Layer):
        def call(self, x):
            return x

    found = difference(tower_model(Local()), tmp_path)
    assert found.startswith("Local is defined inside test_layer_defined_inside_a_function_is_refused()")


def test_damaged_file_gets_no_advice_about_registering(tmp_path):
    path = tmp_path / "model.keras"
    path.write_bytes(b"not a zip file")
    with pytest.raises(ArtifactError) as caught:
        keras_files.load(path)
    assert "register" not in str(caught.value)


@keras.saving.register_keras_serializable("tests")
class LoadedAlone(keras.layers.Layer):
    """Takes a while to load, and counts how many are loaded at once."""

    at_once = most_at_once = 0

    def call(self, x):
        return x

    @classmethod
    def from_config(cls, config):
        cls.at_once += 1
        cls.most_at_once = max(cls.most_at_once, cls.at_once)
        time.sleep(0.1)
        cls.at_once -= 1
        return super().from_config(config)


def test_threads_load_one_after_the_other(tmp_path):
    """Keras changes classes while it loads: a task of KerasHub sometimes lost its `call` to another thread."""
    x = keras.Input((2,))
    keras_files.save(keras.Model(x, LoadedAlone()(x)), tmp_path / "model.keras")
    threads = [threading.Thread(target=keras_files.load, args=(tmp_path / "model.keras",)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert LoadedAlone.most_at_once == 1
