"""Which signatures are batched: those whose answers to a row do not depend on the rows of other clients."""

from __future__ import annotations

import concurrent.futures
import functools

import numpy as np
import pytest

import kerasline as kl
from kerasline.components.models.row_independence import find_row_dependence
from kerasline.components.models.session import SavedModelSession
from tests.components.serving.saved_models import save_functions
from tests.components.serving.servers import serving

CLIENTS, REQUESTS = 8, 25


def independent(tf):
    return {
        "softmax": (lambda x: tf.nn.softmax(x * 3.0), [None, 3], tf.float32),
        "dense": (lambda x: tf.matmul(x, tf.ones([3, 400])), [None, 3], tf.float32),
        "lengths": (lambda x: tf.reduce_sum(x, axis=1), [None, None], tf.float32),
        "embedding": (lambda x: tf.gather(tf.eye(10), x), [None, 2], tf.int32),
        "texts": (lambda x: tf.strings.length(x), [None, 1], tf.string),
        "half": (lambda x: tf.cast(tf.nn.softmax(tf.cast(x, tf.float16)), tf.float32), [None, 3], tf.float32),
    }


def rounded(tf, x):
    """Values from 0 to 1 by row, whose last bits depend on the number of rows as those of a long sum do."""
    return tf.linspace(0.2, 0.8, 3072)[tf.newaxis] * tf.nn.sigmoid(x[:, :1]) + 2e-6 * tf.cast(tf.shape(x)[0], x.dtype)


def wav(tf, x):
    return kl.decoding.encode_wav(x, 8000)


def png(tf, x):
    return kl.decoding.encode_png(tf.reshape(x, [-1, 32, 32, 3]))


def jpeg(tf, x):
    return kl.decoding.encode_jpeg(tf.reshape(x, [-1, 32, 32, 3]), 75)


def mixing(tf, x):
    return 0.9 * rounded(tf, x) + 0.1 * tf.reduce_max(rounded(tf, x), axis=0)


FILES = {"wav": wav, "png": png, "jpeg": jpeg}


def files(tf, values):
    """Return functions that answer with files of these values."""

    def function(encode):
        return lambda x: encode(tf, values(tf, x))

    return {f"{values.__name__}_{name}": (function(encode), [None, 3], tf.float32) for name, encode in FILES.items()}


def dependent(tf):
    return {
        "centred": (lambda x: x - tf.reduce_mean(x, axis=0), [None, 3], tf.float32),
        "loudest": (lambda x: tf.maximum(x, tf.reduce_max(x) - 80.0), [None, 3], tf.float32),
        "ranked": (lambda x: tf.argsort(tf.argsort(x[:, 0])), [None, 3], tf.float32),
        "shifted": (lambda x: x + tf.roll(x, 1, axis=0), [None, 3], tf.float32),
        "large_batches": (
            lambda x: x + tf.cast(tf.maximum(tf.shape(x)[0] - 40, 0), tf.float32),
            [None, 3],
            tf.float32,
        ),
        "padded": (
            lambda x: tf.zeros_like(tf.strings.length(x)) + tf.shape(tf.strings.split(x).to_tensor())[1],
            [None],
            tf.string,
        ),
        "unique": (lambda x: tf.unique(x)[1], [None], tf.int64),
        "random": (lambda x: x + tf.random.normal(tf.shape(x)), [None, 3], tf.float32),
    }


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    import tensorflow as tf

    folder = save_functions(
        tmp_path_factory.mktemp("rows") / "1",
        {**independent(tf), **dependent(tf), **files(tf, rounded), **files(tf, mixing)},
    )
    session = SavedModelSession(folder)
    yield session
    session.close()


INDEPENDENT = ["softmax", "dense", "lengths", "embedding", "texts", "half"]
DEPENDENT = ["centred", "loudest", "ranked", "shifted", "large_batches", "padded", "unique", "random"]


@pytest.mark.parametrize("name", [*INDEPENDENT, *(f"rounded_{kind}" for kind in FILES)])
def test_independent_rows_are_recognised(session, name):
    signature = session.signatures[name]
    call = functools.partial(session.call, signature)
    assert find_row_dependence(call, signature, half_precision=name == "half") is None


@pytest.mark.parametrize("name", [*DEPENDENT, *(f"mixing_{kind}" for kind in FILES)])
def test_dependent_rows_are_recognised(session, name):
    signature = session.signatures[name]
    assert "differs" in find_row_dependence(functools.partial(session.call, signature), signature)


@pytest.mark.parametrize("kind", FILES)
def test_rounding_changes_the_bytes_of_files(session, kind):
    """Otherwise the tests above would show nothing."""
    alone, many = (session.call(session.signatures[f"rounded_{kind}"], [np.zeros((n, 3), "f")])[0] for n in (1, 128))
    assert alone[0] != many[0]


def test_rejected_rows_need_recorded_ones(session):
    """A lookup of ten rows rejects numbers beyond; here all invented rows are rejected."""
    signature = session.signatures["embedding"]

    def call(arrays):
        if arrays[0].min() < 8:
            raise ValueError("too small")
        return session.call(signature, arrays)

    assert "rejects every invented row" in find_row_dependence(call, signature)
    assert find_row_dependence(call, signature, [[np.array([[8, 9], [9, 8]], np.int32)]]) is None


def test_rows_of_clients_are_not_mixed(tmp_path):
    """By default, no answer depends on other clients, and log and status say which signature is not batched."""
    import tensorflow as tf

    (tmp_path / "mixing").mkdir()
    mean = lambda x: x - tf.reduce_mean(x, axis=0, keepdims=True)  # noqa: E731
    save_functions(tmp_path / "mixing" / "1", {"serving_default": (mean, [None, 3], tf.float32)})
    with serving(tmp_path / "log", str(tmp_path / "mixing")) as server:

        def ask(client: int) -> list[bool]:
            body = {"instances": [[client, 2.0 * client, 1.0]]}
            answers = [server.post("/v1/models/mixing:predict", body) for _ in range(REQUESTS)]
            return [answer == (200, {"predictions": [[0.0, 0.0, 0.0]]}) for answer in answers]

        with concurrent.futures.ThreadPoolExecutor(CLIENTS) as clients:
            assert all(right for answers in clients.map(ask, range(CLIENTS)) for right in answers)
        (status,) = server.get("/v1/models/mixing")[1]["model_version_status"]
        assert status["status"]["error_code"] == "OK"
        assert "signature serving_default is not batched: output" in status["status"]["error_message"]
        assert "serving_default" in server.get("/v1/models")[1]["models"]["mixing"][0]["unbatched"]
        assert "signature serving_default is not batched: output" in server.log.read_text()


@pytest.fixture(scope="module")
def counting(tmp_path_factory):
    """A model that counts its executions in a variable."""
    import tensorflow as tf

    folder = tmp_path_factory.mktemp("served") / "counting"
    folder.mkdir()
    count = tf.Variable(0.0)
    save_functions(
        folder / "1",
        {
            "serving_default": (lambda x: tf.zeros_like(x) + count.assign_add(1.0), [None], tf.float32),
            "read": (lambda x: tf.zeros_like(x) + count, [None], tf.float32),
        },
        count=count,
    )
    return folder


@pytest.mark.parametrize("mode", ["auto", "on", "off"])
def test_loading_leaves_the_state_of_a_model_unchanged(counting, tmp_path, mode):
    with serving(tmp_path / "log", str(counting), "--batching", mode) as server:
        ask = functools.partial(server.post, "/v1/models/counting:predict")
        assert ask({"signature_name": "read", "instances": [0.0]}) == (200, {"predictions": [0.0]})
        assert ask({"instances": [0.0]}) == (200, {"predictions": [1.0]})
        assert ask({"signature_name": "read", "instances": [0.0]}) == (200, {"predictions": [1.0]})
        assert ("may change a state: AssignAddVariableOp" in server.log.read_text()) == (mode == "auto")
