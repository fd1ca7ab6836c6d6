"""A small model that continues texts with random weights: subwords with bytes, and attention with a cache."""

import keras
import numpy as np

import kerasline as kl

LENGTH, END = 120, 3
TEXTS = ["the cat sleeps", "dös ist schön, ça va?", "猫は眠る 🐈 and wakes", "the dog reads a letter", "a cat reads"]


def preprocessing():
    text = keras.Input((1,), name="text", dtype="string")
    words = kl.layers.Subwords(top=320, begin=True, byte_fallback=True, name="words")
    ids = words(text, length=LENGTH)
    return keras.Model({"text": text}, {"tokens": ids[:, :-1], "next": ids[:, 1:]})


@keras.saving.register_keras_serializable("talker")
class Talker(keras.layers.Layer):
    def __init__(self, size, **options):
        super().__init__(**options)
        self.size = size
        lively = keras.initializers.RandomNormal(stddev=1.0, seed=3)
        self.words = keras.layers.Embedding(size, 16, embeddings_initializer=lively)
        self.attention = kl.layers.CachedAttention(2, 8)
        self.head = keras.layers.Dense(size, kernel_initializer=lively)

    def build(self, shape):
        self.words.build()
        self.attention.build((None, None, 16), (None, None, 16))
        self.head.build((None, None, 16))

    def call(self, tokens):
        x = self.words(tokens)
        return self.head(x + self.attention(x, x, use_causal_mask=True))

    def step(self, tokens, position, state):
        x = self.words(tokens[:, None])
        y, cache = self.attention.step(x, state, position)
        logits = self.head(x + y)[:, 0]
        return logits - 4.0 * keras.ops.one_hot(END, self.size), cache  # ends late

    def get_config(self):
        return {**super().get_config(), "size": self.size}


def build_model(inputs, hp, prepared):
    keras.utils.set_random_seed(5)
    logits = Talker(prepared.vocabulary_size("tokens"), name="talker")(inputs["tokens"])
    model = keras.Model(inputs, keras.layers.Identity(name="next")(logits))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def answer(model, features, prepared):
    talker, prompt = model.get_layer("talker"), features["tokens"]
    cache = talker.attention.new_cache(keras.ops.shape(prompt)[0], LENGTH)
    found = kl.generate(talker.step, prompt, cache, length=LENGTH, end=END, temperature=0.8, top_p=0.95, seed=1)
    return {"said": prepared.layer("words").decode(found.ids), "score": found.scores}


def write_artifacts(folder):
    """Return the preprocessing and the model."""
    examples = kl.InMemoryExampleGen({"text": TEXTS * 4}, splits={"train": 1}).execute(folder / "examples").examples
    transform = kl.Transform(examples, function=preprocessing, label="next")
    prepared = transform.execute(folder / "transform").preprocessing
    return prepared, kl.ModelBuilder(prepared, function=build_model).execute(folder / "model").model


def save_talker(folder):
    """Write the SavedModel of the model, and return its folder."""
    prepared, model = write_artifacts(folder)
    exporter = kl.Exporter(prepared, model, answer=answer, stream=True)
    return exporter.execute(folder / "exported").saved_model.path


def prompts():
    """Return prompts of one to twenty words, by a fixed seed."""
    words = " ".join(TEXTS).split()
    random = np.random.default_rng(0)
    return [" ".join(random.choice(words, size)) for size in (1, 2, 3, 5, 8, 12, 20, 1)]
