from kerasline import TfdsExampleGen


def test_beam_builder_is_prepared_and_nested_features_flattened(tmp_path):
    stage = TfdsExampleGen("tests.components.data.sources.builders:Squares")
    rows = sorted(stage.execute(tmp_path).examples.read("train").to_pylist(), key=lambda row: row["number"])
    assert rows == [
        {
            "number": n,
            "more.square": float(n**2),
            "more.words": ["word"] * (n % 3),
            "pairs.left": [n, n],
            "pairs.right": [1, 2],
        }
        for n in range(100)
    ]
