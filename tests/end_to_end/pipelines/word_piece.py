"""A classifier of texts, with KerasHub's WordPiece tokenizer in Transform."""

import kerasline as kl

VOCABULARY = ["[PAD]", "[UNK]", "good", "bad", "very", "film", "##s", "##ly", "the"]
GOOD = ["good film", "very good", "the film very good", "good films", "goodly film"]
BAD = ["bad film", "very bad", "the film very bad", "bad films", "badly film"]


def preprocessing():
    import keras
    import keras_hub

    text = keras.Input((), name="text", dtype="string")
    tokenizer = keras_hub.tokenizers.WordPieceTokenizer(vocabulary=VOCABULARY, sequence_length=5, lowercase=True)
    return keras.Model({"text": text}, {"tokens": tokenizer(text)})


def build_model(inputs, hp):
    import keras

    words = keras.layers.Embedding(len(VOCABULARY), 4, mask_zero=True)(inputs["tokens"])
    mood = keras.layers.Dense(1, "sigmoid", name="mood")(keras.layers.GlobalAveragePooling1D()(words))
    model = keras.Model(inputs, mood)
    model.compile(keras.optimizers.Adam(0.1), "binary_crossentropy")
    return model


def pipeline(settings) -> kl.Pipeline:
    rows = {"text": [*GOOD, *BAD] * 4, "good": ([1] * 5 + [0] * 5) * 4}
    examples = kl.InMemoryExampleGen(rows, splits={"train": 3, "eval": 1})
    prepared = kl.Transform(examples, function=preprocessing, label="good")
    model = kl.ModelBuilder(prepared, function=build_model)
    trained = kl.Trainer(examples, prepared, model, epochs=20, batch_size=10)
    exported = kl.Exporter(prepared, trained)
    evaluation = kl.Evaluator(examples, prepared, trained, split="eval", saved_model=exported, replicates=0)
    validated = kl.InfraValidator(exported, examples, split="eval")
    pushed = kl.Pusher(exported, evaluation, validated, destination=str(settings.root / "served"))
    return kl.Pipeline("word_piece", [pushed])
