"""The effect of each setting of Trainer."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import accuracy_score

from kerasline import ModelBuilder, Trainer
from kerasline.components.core.errors import DataError, ParameterError, UserCodeError
from kerasline.components.trainer.autotune import Autotuner
from tests.components.trainer.conftest import BATCH, ROWS, X, Y, build_model
from tests.marks import slowly

STEPS = 2 * -(-ROWS // BATCH)


@keras.saving.register_keras_serializable("tests")
class Spy(keras.layers.Layer):
    """Returns its input and records its dtype."""

    seen: list[str] = []

    def call(self, x):
        Spy.seen.append(tf.as_dtype(x.dtype).name)
        return x


def spied(inputs, hp):
    x = keras.layers.Dense(8, activation="relu")(inputs["x"])
    model = keras.Model(inputs, keras.layers.Dense(2)(Spy()(x)))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return model


@pytest.mark.parametrize(("precision", "inside"), [("mixed_bfloat16", "bfloat16"), slowly("mixed_float16", "float16")])
def test_mixed_precision_computes_in_half_and_keeps_float32(train, precision, inside):
    full = train(function=spied, epochs=4)
    Spy.seen.clear()
    half = train(function=spied, epochs=4, precision=precision)
    assert inside in Spy.seen and half.facts["precision"] == precision
    np.testing.assert_allclose(half.losses, full.losses, atol=0.02)
    assert {w.dtype.name for w in half.weights} == {"float32"}
    assert {layer.dtype_policy.name for layer in half.model.layers} == {"float32"}
    assert type(half.model.optimizer).__name__ == "SGD"


def test_trained_model_has_the_metrics_of_the_last_epoch(train):
    trained = train({"rate": 0.3}, epochs=5)
    answers = trained.model.predict({"x": X[:90]}, verbose=0).argmax(1)
    assert trained.epochs[-1]["val_accuracy"] == pytest.approx(accuracy_score(Y[:90], answers))
    assert trained.metrics["val_accuracy"] > 0.8 and trained.facts["steps"] == 5 * STEPS // 2
    assert set(trained.facts["metrics"]) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    last = {name: trained.epochs[-1][name] for name in trained.facts["metrics"]}
    assert trained.facts["metrics"] == last and trained.facts["epochs"] == 5 and not trained.facts["best_epoch"]


@pytest.mark.slow
def test_rematerialization_does_not_change_the_result(train):
    plain, again = train({"activation": "gelu"}), train({"activation": "gelu"}, rematerialize=True)
    np.testing.assert_allclose(again.losses, plain.losses, atol=1e-4)
    named = train({"activation": "gelu"}, rematerialize=["hidden"])
    np.testing.assert_allclose(named.losses, plain.losses, atol=1e-4)


@pytest.mark.parametrize("steps_per_execution", [slowly(1), 3, slowly(1000)])
def test_steps_per_execution_does_not_change_the_result(train, steps_per_execution):
    one = train({"dropout": 0.2}, steps_per_execution=steps_per_execution)
    np.testing.assert_array_equal(one.losses, train({"dropout": 0.2}).losses)


def test_optimizers_schedules_losses_and_metrics_by_name(train):
    rate = {
        "name": "CosineDecay",
        "initial_learning_rate": 0.1,
        "decay_steps": STEPS,
        "warmup_steps": 5,
        "warmup_target": 0.2,
    }
    loss = {"name": "SparseCategoricalCrossentropy", "from_logits": True}
    metrics = [{"name": "SparseTopKCategoricalAccuracy", "k": 2}]
    trained = train(optimizer={"name": "AdamW", "learning_rate": rate}, loss=loss, metrics=metrics)
    assert trained.model.optimizer.name.startswith("adam_w")
    assert trained.metrics["sparse_top_k_categorical_accuracy"] == 1 and "accuracy" not in trained.metrics
    schedule = keras.optimizers.schedules.CosineDecay(0.1, STEPS, warmup_steps=5, warmup_target=0.2)
    assert [epoch["learning_rate"] for epoch in trained.epochs] == pytest.approx(
        [float(schedule(STEPS // 2)), float(schedule(STEPS))], abs=1e-7
    )


@pytest.mark.slow
def test_warm_up_can_precede_any_schedule(train):
    rate = {
        "name": "ExponentialDecay",
        "initial_learning_rate": 0.1,
        "decay_steps": 10,
        "decay_rate": 0.5,
        "warmup_steps": STEPS,
    }
    trained = train(optimizer={"name": "SGD", "learning_rate": rate})
    assert [epoch["learning_rate"] for epoch in trained.epochs] == pytest.approx([0.05, 0.1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"device": "gpu:3"}, r"Trainer.device: 'gpu:3' is not available, TensorFlow finds no GPUs.*device=cpu"),
        ({"device": "tpu"}, r"Trainer.device: expected auto, cpu, gpu, .* received 'tpu'"),
        ({"replicas": 2}, r"Trainer.replicas: requires distribution=mirrored"),
        ({"distribution": "mirrored", "jit_compile": True}, r"does not compile the steps of a mirrored distribution"),
        ({"optimizer": "adagradd"}, r"Trainer.optimizer: Keras has no optimizer 'adagradd'; did you mean 'Adagrad'\?"),
        (
            {"optimizer": {"name": "SGD", "momentun": 1}},
            r"Trainer.optimizer.momentun: SGD has no such argument; did you",
        ),
        ({"optimizer": {"name": "SGD", "momentum": 7}}, r"Trainer.optimizer: SGD: .*momentum.* must be"),
        ({"loss": {"logits": "hubr"}}, r"Trainer.loss.logits: Keras has no loss 'hubr'; did you mean 'Huber'\?"),
        ({"clip_norm": 1.0, "clip_value": 1.0}, r"Trainer: SGD does not accept .*Only one of"),
        ({"rematerialize": ["hiden"]}, r"Trainer.rematerialize: the model has no layer 'hiden'; did you mean 'hidden'"),
        ({"class_weight": {"1": 1.0, "x": 1.0}}, r"Trainer.class_weight: no class 'x'"),
        ({"class_weight": {"2": 1.0}}, r"Trainer.class_weight: no class '2'; expected a class from 0 to 1"),
        ({"early_stopping": {"monitor": "val_acuracy"}}, r"monitor: no metric 'val_acuracy'.* 'val_accuracy'"),
        ({"gpu_memory_limit": 100}, r"Trainer.gpu_memory_limit: training runs on the CPU"),
    ],
)
def test_impossible_settings_are_errors_in_one_line(train, settings, message):
    with pytest.raises(ParameterError, match=message):
        train(**settings)


def test_early_stopping_agrees_with_keras(train, problem, tmp_path):
    settings = {"monitor": "val_loss", "patience": 2, "min_delta": 0.01}
    trained = train({"rate": 0.5}, epochs=40, shuffle=False, early_stopping=settings)
    first = train({"rate": 0.5}, epochs=1, steps=1, shuffle=False, optimizer={"name": "SGD", "learning_rate": 1e-30})
    model = build_model({"x": keras.Input((4,), name="x")}, {"rate": 0.5})
    model.set_weights(first.weights)
    stopping = keras.callbacks.EarlyStopping("val_loss", 0.01, 2, restore_best_weights=True)
    history = model.fit(
        {"x": X}, Y, BATCH, 40, shuffle=False, verbose=0, validation_data=({"x": X[:90]}, Y[:90]), callbacks=[stopping]
    ).history
    assert len(trained.epochs) == len(history["loss"]) < 40
    assert trained.metrics["best_epoch"] == trained.facts["best_epoch"] == stopping.best_epoch + 1
    assert trained.facts["metrics"]["val_loss"] == trained.epochs[stopping.best_epoch]["val_loss"]
    for ours, theirs in zip(trained.weights, model.get_weights()):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


@keras.saving.register_keras_serializable("tests")
class Fuse(keras.layers.Layer):
    """Returns NaN for large inputs, which occur when the learning rate is too high."""

    def call(self, x):
        return keras.ops.where(keras.ops.max(keras.ops.abs(x)) > 60.0, float("nan"), x)


def fused(inputs, hp):
    model = keras.Model(inputs, keras.layers.Dense(2)(Fuse(name="fuse")(keras.layers.Dense(8)(inputs["x"]))))
    model.compile(
        keras.optimizers.SGD(hp["rate"]), keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=[]
    )
    return model


def test_nan_loss_names_step_and_layer_and_keeps_the_checkpoint(train, tmp_path):
    with pytest.raises(DataError, match=r"loss became nan in step (\d+) \(epoch \d+, step \d+\): layer '.*fuse'"):
        train({"rate": 60.0}, function=fused, epochs=30, checkpoint_steps=1, state_dir=tmp_path / "state")
    assert len(list((tmp_path / "state" / "checkpoints").glob("step-*.npz"))) == 2


@pytest.mark.slow
def test_roll_back_halves_the_learning_rate(train):
    """Gradient descent on a squared error diverges where the rate exceeds 2 / the largest eigenvalue."""
    largest = np.linalg.eigvalsh(np.cov(np.c_[X, np.ones(ROWS)].T, bias=True))[-1]
    trained = train({"rate": 12.0 / largest}, function=line, epochs=20, on_non_finite="roll_back", checkpoint_steps=5)
    back = [text for text in trained.progress if "back to step" in text]
    assert 3 <= len(back) <= 5 and np.isfinite(trained.losses).all() and len(trained.losses) == 20 * STEPS // 2
    assert trained.epochs[-1]["learning_rate"] == pytest.approx(12.0 / largest / 2 ** len(back))
    assert trained.losses[-1] < trained.losses.max()


def line(inputs, hp):
    model = keras.Model(inputs, keras.layers.Dense(1)(inputs["x"]))
    model.compile(keras.optimizers.SGD(hp["rate"]), "mse")
    return model


@pytest.mark.slow
def test_tensorboard_logs_have_scalars_graph_and_profile(train):
    logs = train(profile_steps=[3, 5]).folder / "tensorboard"
    (file,) = (logs / "train").glob("events*")
    events = list(tf.compat.v1.train.summary_iterator(str(file)))
    tags = {value.tag for event in events for value in event.summary.value}
    assert {"loss", "epoch_loss", "epoch_accuracy", "epoch_learning_rate"} <= tags
    assert any(event.graph_def for event in events)
    assert list(logs.glob("train/plugins/profile/*/*.xplane.pb"))
    assert list((logs / "validation").glob("events*"))


def own_training(context):
    context.report("hello")
    epochs = []
    for _ in range(context.epochs):
        losses = [context.model.train_on_batch(*batch) for batch in context.data.take(context.steps_per_epoch)]
        epochs.append({"loss": float(np.mean(losses))})
    return epochs


def fitting(context):
    return context.model.fit(
        context.data,
        epochs=context.epochs,
        steps_per_epoch=context.steps_per_epoch,
        verbose=0,
        validation_data=context.validation,
    )


@pytest.mark.parametrize("own", [own_training, fitting])
def test_custom_training_function_trains_the_model(train, own):
    trained = train({"rate": 0.3}, own=own, epochs=3)
    assert trained.losses is None and [epoch["epoch"] for epoch in trained.epochs] == [1, 2, 3]
    assert trained.epochs[-1]["loss"] < trained.epochs[0]["loss"]
    assert int(trained.model.optimizer.iterations.value) == 3 * STEPS // 2


def test_exception_in_custom_training_function_is_a_user_code_error(train):
    def broken(context):
        raise ZeroDivisionError("no")

    with pytest.raises(UserCodeError, match=r"broken\(\) raised ZeroDivisionError: no .*test_settings.py, line"):
        train(own=broken)


def two_heads(inputs, hp):
    x = keras.layers.Dense(8, activation="relu")(inputs["x"])
    outputs = {"y": keras.layers.Dense(2, name="y")(x), "w": keras.layers.Dense(1, name="w")(x)}
    model = keras.Model(inputs, outputs)
    model.compile("adam", {"y": keras.losses.SparseCategoricalCrossentropy(from_logits=True), "w": "mse"})
    return model


def test_several_outputs_learn_several_labels(problem, tmp_path):
    from kerasline import Transform
    from tests.components.trainer.conftest import preprocessing

    examples, _ = problem
    prepared = Transform(examples, function=preprocessing, label=["y", "w"]).execute(tmp_path / "t").preprocessing
    model = ModelBuilder(prepared, function=two_heads).execute(tmp_path / "m").model
    trainer = Trainer(examples, prepared, model, epochs=3, metrics={"y": ["accuracy"]}, batch_size=BATCH)
    done = trainer.execute(tmp_path / "d")
    assert done.metrics["val_loss"] == pytest.approx(done.metrics["val_y_loss"] + done.metrics["val_w_loss"], rel=1e-5)
    assert 0 <= done.metrics["val_y_accuracy"] <= 1


class TestAutotuner:
    """Steps per call and the use of XLA, for given durations."""

    def test_call_takes_a_quarter_of_a_second(self):
        tuner = Autotuner("auto", False)
        assert tuner.next_steps(500) == 1
        assert tuner.record(1, 2.0, 999)  # the first compiles
        tuner.record(1, 0.01, 998)
        assert tuner.next_steps(500) == 25 and tuner.next_steps(7) == 7

    @pytest.mark.parametrize(("with_xla", "kept"), [(0.4, True), (0.99, False)])
    def test_xla_is_kept_if_it_is_faster(self, with_xla, kept):
        tuner = Autotuner("auto", "auto")
        tuner.record(1, 1.0, 10**6)
        tuner.record(1000, 1.0, 10**6)
        assert tuner.is_compiled
        tuner.record(1, 5.0, 10**6)
        tuner.record(1000, with_xla, 10**6)
        tuner.record(1000, with_xla, 10**6)
        assert tuner.is_compiled is kept

    def test_xla_is_not_tried_with_long_steps_or_near_the_end(self):
        for seconds, left in ((1.0, 1000), (100.0, 10**6)):
            tuner = Autotuner("auto", "auto")
            tuner.record(1, 1.0, left)
            tuner.record(1000, seconds, left)
            assert not tuner.is_compiled


def much_too_large(inputs, hp):
    """A step of 16 rows needs 64 TB, more than any allocator provides."""
    repeated = keras.layers.RepeatVector(10**11)(keras.layers.Dense(10)(inputs["x"]))
    outputs = keras.layers.Dense(2)(keras.layers.GlobalMaxPooling1D()(repeated))
    model = keras.Model(inputs, outputs)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


@pytest.mark.slow
def test_out_of_memory_error_has_the_estimate_of_plan(train):
    with pytest.raises(
        DataError, match="memory ran out: a step of 16 rows needs about .* not even one row per step fits"
    ):
        train(function=much_too_large, eval_split=None)
