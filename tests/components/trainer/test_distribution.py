"""Training on several devices and processes gives the same result as on one."""

import numpy as np
import pytest

from kerasline.components.core.errors import KeraslineError, ParameterError
from kerasline.components.trainer.replicas import gpus_of_worker
from tests.components.trainer.conftest import BATCH, ROWS

STEPS = 2 * -(-ROWS // BATCH)
# Smooth: at the kink of a ReLU, a rounding difference would change the gradient.
HP = {"activation": "tanh", "rate": 0.1, "momentum": 0.9}


@pytest.mark.parametrize(
    "distribution",
    [
        {"distribution": "mirrored"},
        pytest.param({"distribution": "mirrored", "replicas": 4, "precision": "mixed_float16"}, marks=pytest.mark.slow),
    ],
)
def test_several_replicas_give_the_result_of_one(train, distribution):
    """203 rows in batches of 16: the last batch of an epoch has 11, which no two replicas can share evenly."""
    alone = train(HP, precision=distribution.get("precision", "float32"))
    together = train(HP, **distribution)
    tolerance = 1e-2 if "precision" in distribution else 1e-4
    assert len(together.losses) == STEPS
    np.testing.assert_allclose(together.losses, alone.losses, atol=tolerance)
    for ours, theirs in zip(together.weights, alone.weights):
        np.testing.assert_allclose(ours, theirs, atol=tolerance)
    assert together.epochs[-1]["val_accuracy"] == pytest.approx(alone.epochs[-1]["val_accuracy"], abs=0.03)
    assert together.epochs[-1]["val_loss"] == pytest.approx(alone.epochs[-1]["val_loss"], abs=tolerance)
    assert together.facts["replicas"] == distribution.get("replicas", 2)


@pytest.mark.parametrize(
    ("worker", "own"), [(0, ["a", "b"]), (1, ["c", "d"]), (2, ["a", "b", "c", "d"])], ids=["first", "second", "alone"]
)
def test_workers_of_a_machine_share_its_gpus(worker, own):
    addresses = ["10.0.0.1:1", "10.0.0.1:2", "10.0.0.2:1"]
    assert gpus_of_worker(["a", "b", "c", "d"], addresses, worker) == own
    if worker < 2:
        with pytest.raises(
            ParameterError, match="at most one worker per GPU, received 2 on 10.0.0.1, which has 1 GPUs"
        ):
            gpus_of_worker(["a"], addresses, worker)


@pytest.mark.slow
def test_deterministic_training_is_reproducible(train):
    settings = {"deterministic": True, "epochs": 3}
    hp = {"dropout": 0.2, "units": 64}
    one, two = train(hp, **settings), train(hp, **settings)
    np.testing.assert_array_equal(one.losses, two.losses)
    for ours, theirs in zip(one.weights, two.weights):
        np.testing.assert_array_equal(ours, theirs)
    assert one.facts["deterministic"] and not one.facts["jit_compile"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"distribution": "mirrored", "replicas": 3}, "batch_size: 16 rows cannot be shared by 3 replicas evenly"),
        (
            {"distribution": "multi_worker"},
            "multi_worker requires Trainer.workers .* or the environment variable TF_CONFIG",
        ),
    ],
)
def test_impossible_distributions_are_errors_in_one_line(train, settings, message):
    with pytest.raises((ParameterError, KeraslineError), match=message):
        train(**settings)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"clip_norm": 0.05, "accumulate_steps": 3, "optimizer": "adamw", "ema": 0.9},
        {"clip_value": 0.01, "class_weight": {"0": 2.0, "1": 0.5}, "weighted": True},
    ],
)
def test_gradient_settings_apply_to_the_whole_batch(train, settings):
    alone = train(HP, **settings, precision="float32")
    together = train(HP, **settings, distribution="mirrored", replicas=2)
    np.testing.assert_allclose(together.losses, alone.losses, atol=1e-5)
    for ours, theirs in zip(together.weights, alone.weights):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    for ours, theirs in zip(together.epochs, alone.epochs):
        assert ours == pytest.approx(theirs, abs=1e-5)
