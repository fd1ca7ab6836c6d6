"""Principal components, compared with scikit-learn; and whitening, compared with its formula."""

import keras
import numpy as np
import pytest
from sklearn.decomposition import PCA

from kerasline.components.preprocessing.layers.projection import PrincipalComponents, Whitening
from tests.components.preprocessing.layers.round_trip import adapted, in_tf_data, round_trips

RANDOM = np.random.default_rng(9)
ROWS = (RANDOM.normal(size=(500, 4)) * [5, 2, 1, 0.3] @ RANDOM.normal(size=(4, 4)) + 10).astype("float32")
FLAT = np.concatenate([ROWS, ROWS[:, :1] + ROWS[:, 1:2]], axis=1)  # of rank 4


@pytest.mark.parametrize("whiten", [False, True])
@pytest.mark.parametrize("components", [1, 2, 4])
def test_projection_agrees_with_scikit_learn(components, whiten):
    ours = adapted(PrincipalComponents(components, whiten=whiten), ROWS)(ROWS)
    expected = PCA(components, whiten=whiten, svd_solver="full").fit(ROWS.astype("float64")).transform(ROWS)
    np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=2e-3)


def test_directions_without_variance_give_zero_instead_of_noise():
    ours = adapted(PrincipalComponents(5, whiten=True), FLAT.astype("float64").round(3))(FLAT).numpy()
    np.testing.assert_allclose(ours[:, :4].std(axis=0, ddof=1), 1, rtol=1e-2)
    still = adapted(PrincipalComponents(2, whiten=True), np.ones((5, 3), "float32"))
    assert (still(np.ones((2, 3), "float32")).numpy() == 0).all()


def test_zca_whitening_agrees_with_its_formula():
    ours = adapted(Whitening(epsilon=0.0), ROWS)(ROWS).numpy()
    np.testing.assert_allclose(np.cov(ours.T), np.eye(4), atol=1e-2)
    values, vectors = np.linalg.eigh(np.cov(ROWS.T.astype("float64")))
    root = vectors @ np.diag(values**-0.5) @ vectors.T
    np.testing.assert_allclose(ours, (ROWS - ROWS.mean(0)) @ root, atol=2e-2)


def test_incomplete_rows_are_ignored_and_become_nan():
    holes = np.concatenate([ROWS, [[np.nan, 1, 1, 1], [np.inf, 1, 1, 1]]]).astype("float32")
    with_holes, without = (adapted(PrincipalComponents(2), rows) for rows in (holes, ROWS))
    np.testing.assert_allclose(with_holes.matrix, without.matrix, atol=1e-5)
    assert np.isnan(with_holes(holes[-2:])).all()
    assert np.isnan(adapted(Whitening(), holes)(holes[-2:])).all()


@pytest.mark.parametrize("layer", [PrincipalComponents(2), Whitening()], ids=["components", "whitening"])
def test_without_data_components_are_zero_and_whitening_is_identity(layer):
    given = np.array([[1.0, 2.0]], "float32")
    expected = [[0, 0]] if isinstance(layer, PrincipalComponents) else [[1, 2]]
    assert adapted(layer, np.full((3, 2), np.nan, "float32"))(given).numpy().tolist() == expected


@pytest.mark.parametrize("shape", [(4,), (2, 4)], ids=str)
def test_saved_and_exported_models_agree(shape, tmp_path):
    rows = ROWS.reshape(-1, *shape)
    raw = keras.Input(shape, name="x")
    outputs = {"a": adapted(PrincipalComponents(3, whiten=True), rows)(raw), "b": adapted(Whitening(), rows)(raw)}
    assert outputs["a"].shape[1:] == (*shape[:-1], 3)
    round_trips(keras.Model({"x": raw}, outputs), {"x": rows}, tmp_path)
    in_tf_data(keras.Model({"x": raw}, outputs), {"x": rows})


def test_without_centering_the_mean_is_kept(tmp_path):
    layer = adapted(PrincipalComponents(2, center=False), ROWS)
    directions = PCA(2, svd_solver="full").fit(ROWS.astype("float64")).components_
    np.testing.assert_allclose(layer(ROWS), ROWS @ directions.T, rtol=1e-3, atol=2e-3)
    raw = keras.Input((4,), name="x")
    round_trips(keras.Model({"x": raw}, {"y": layer(raw)}), {"x": ROWS}, tmp_path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PrincipalComponents(0), "invalid components: expected an integer from 1.*, received 0"),
        (lambda: PrincipalComponents(3)(keras.Input((2,))), "invalid components: expected at most 2.*, received 3"),
        (lambda: Whitening()(keras.Input((None,))), "invalid inputs: expected .*known number of features"),
        (lambda: Whitening(-1), "invalid epsilon: .* received -1"),
    ],
)
def test_invalid_arguments_raise(make, message):
    with pytest.raises(ValueError, match=message):
        make()
