"""Generated sequences, against exhaustive search, NumPy and the distribution that is sampled."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasline as kl

GENERATOR = np.random.default_rng(0)
VOCABULARY, END, BEGIN = 6, 5, 4
# Logits of the next id, by id and position: a model without memory. Id 0 is padding.
TABLE = GENERATOR.normal(size=(8, VOCABULARY, VOCABULARY)).astype("float32") * 2


def step(tokens, position, state):
    """The logits depend on the id, on the position, and on the row's own offsets in the state."""
    return tf.gather(tf.gather(TABLE, position), tokens) + state["offsets"], {**state, "seen": state["seen"] + 1}


def state_of(offsets):
    return {"offsets": tf.constant(offsets), "seen": tf.zeros([len(offsets), 1])}


OFFSETS = GENERATOR.normal(size=(7, VOCABULARY)).astype("float32")
STATE = state_of(OFFSETS)
PROMPTS = np.array([[4, 0, 0], [4, 1, 0], [4, 2, 3], [1, 0, 0], [2, 2, 0], [4, 5, 0], [3, 0, 0]], "int32")


def log_chances(tokens, position, offsets):
    logits = TABLE[position, tokens] + offsets
    logits[..., 0] = -np.inf
    return logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()


def best_of_all(prompt, offsets, length, penalty):
    """Return the best sequence and its score, by trying all."""
    prompt = [int(i) for i in prompt if i]
    found = []
    for size in range(1, length - len(prompt) + 1):
        full = len(prompt) + size == length
        for rest in itertools.product(range(1, VOCABULARY), repeat=size):
            if END in rest[:-1] or (rest[-1] != END and not full):
                continue
            ids = [*prompt, *rest]
            total = sum(log_chances(ids[at - 1], at - 1, offsets)[ids[at]] for at in range(len(prompt), len(ids)))
            found.append((total / ((5 + size) / 6) ** penalty, ids + [0] * (length - len(ids))))
    return max(found)


def greedy(prompt, offsets, length):
    ids, total = [int(i) for i in prompt if i], 0.0
    while len(ids) < length:
        chances = log_chances(ids[-1], len(ids) - 1, offsets)
        ids.append(int(chances.argmax()))
        total += chances.max()
        if ids[-1] == END:
            break
    return ids + [0] * (length - len(ids)), len(ids), total


def test_greedy_takes_the_most_probable_ids():
    found = kl.generate(step, PROMPTS, STATE, length=8, end=END)
    for row, (prompt, offsets) in enumerate(zip(PROMPTS, OFFSETS)):
        ids, length, score = greedy(prompt, offsets, 8)
        assert found.ids.numpy()[row].tolist() == ids
        assert found.lengths.numpy()[row] == length
        np.testing.assert_allclose(found.scores.numpy()[row], score, rtol=1e-5)


@pytest.mark.parametrize("penalty", [0.0, 0.6, 1.5])
def test_wide_beams_find_the_best_of_all_sequences(penalty):
    found = kl.generate(step, PROMPTS, STATE, length=6, end=END, beams=300, length_penalty=penalty)
    for row, (prompt, offsets) in enumerate(zip(PROMPTS, OFFSETS)):
        score, ids = best_of_all(prompt, offsets, 6, penalty)
        assert found.ids.numpy()[row].tolist() == ids, row
        np.testing.assert_allclose(found.scores.numpy()[row], score, rtol=1e-5)


def test_more_beams_never_score_less_and_lengths_are_counted():
    scores = [kl.generate(step, PROMPTS, STATE, length=8, end=END, beams=beams).scores for beams in (2, 4, 300)]
    greedy_scores = kl.generate(step, PROMPTS, STATE, length=8, end=END).scores
    assert (scores[2] >= greedy_scores - 1e-5).numpy().all() and (scores[2] >= scores[0] - 1e-5).numpy().all()
    found = kl.generate(step, PROMPTS, STATE, length=8, end=END, beams=4)
    for ids, length, prompt in zip(found.ids.numpy(), found.lengths.numpy(), PROMPTS):
        assert (ids[:length] > 0).all() and (ids[length:] == 0).all()
        np.testing.assert_array_equal(ids[: (prompt > 0).sum()], prompt[prompt > 0])
        assert length == 8 or ids[length - 1] == END


OPTIONS = {
    "greedy": {},
    "beams": {"beams": 3, "length_penalty": 0.7},
    "sampled": {"temperature": 1.3, "seed": 5},
    "sampled_by_row": {"temperature": np.linspace(0, 2, 7, dtype="float32"), "seed": np.arange(7), "top_p": 0.9},
    "top_k": {"temperature": 1.0, "top_k": 3, "seed": np.arange(7)},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_row_alone_gets_the_answer_that_it_gets_among_others(name):
    together = kl.generate(step, PROMPTS, STATE, length=8, end=END, **OPTIONS[name])
    for row in range(7):
        options = {key: one[[row]] if isinstance(one, np.ndarray) else one for key, one in OPTIONS[name].items()}
        alone = kl.generate(step, PROMPTS[[row]], state_of(OFFSETS[[row]]), length=8, end=END, **options)
        np.testing.assert_array_equal(alone.ids[0], together.ids[row])
        np.testing.assert_allclose(alone.scores[0], together.scores[row], rtol=1e-5)


@pytest.mark.parametrize("name", OPTIONS)
def test_exported_graph_gives_the_same_answers(name, tmp_path):
    def graph(length):
        signature = [tf.TensorSpec([None, 3], tf.int32), tf.TensorSpec([None, VOCABULARY])]

        @tf.function(input_signature=signature, autograph=False)
        def answer(prompts, offsets):
            state = {"offsets": offsets, "seen": tf.zeros_like(offsets[:, :1])}
            return kl.generate(step, prompts, state, length=length, end=END, **OPTIONS[name])._asdict()

        return answer

    def size(answer):
        return len(answer.get_concrete_function().graph.as_graph_def().node)

    module = tf.Module()
    module.answer = graph(8)
    assert size(module.answer) == size(graph(7))  # a loop, not an unrolled one
    tf.saved_model.save(module, str(tmp_path))
    found = tf.saved_model.load(str(tmp_path)).answer(PROMPTS, OFFSETS)
    expected = kl.generate(step, PROMPTS, STATE, length=8, end=END, **OPTIONS[name])
    np.testing.assert_array_equal(found["ids"], expected.ids)


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("rows", [1, 7])
def test_graph_of_known_rows_gives_the_same_answers(name, rows):
    def ids():
        options = {key: one[:rows] if isinstance(one, np.ndarray) else one for key, one in OPTIONS[name].items()}
        return kl.generate(step, PROMPTS[:rows], state_of(OFFSETS[:rows]), length=8, end=END, **options).ids

    np.testing.assert_array_equal(tf.function(ids, autograph=False)(), ids())


def frequencies(count=4000, **options):
    """How often each id follows id 1 at position 0."""

    @tf.function(autograph=False)
    def ids():
        def same(tokens, position, state):
            return tf.repeat(TABLE[:1, 1], tf.size(tokens), axis=0), state

        return kl.generate(same, tf.ones([count], tf.int32), length=2, pad=-1, seed=tf.range(count), **options).ids

    return np.bincount(ids().numpy()[:, 1], minlength=VOCABULARY) / count


def softmax(logits):
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_samples_follow_the_softmax(temperature):
    expected = softmax(TABLE[0, 1] / temperature)
    np.testing.assert_allclose(frequencies(temperature=temperature), expected, atol=0.03)


def test_top_k_samples_from_the_most_probable_ids():
    expected = softmax(TABLE[0, 1])
    expected[np.argsort(expected)[:-2]] = 0
    np.testing.assert_allclose(frequencies(temperature=1.0, top_k=2), expected / expected.sum(), atol=0.03)
    assert frequencies(temperature=1.0, top_k=1).max() == 1.0


@pytest.mark.parametrize("top_p", [0.3, 0.8, 1.0])
def test_top_p_samples_from_the_fewest_ids_with_that_probability(top_p):
    chances = softmax(TABLE[0, 1])
    order = np.argsort(-chances)
    kept = order[: 1 + int(np.searchsorted(np.cumsum(chances[order]), top_p))]
    expected = np.zeros(VOCABULARY)
    expected[kept] = chances[kept] / chances[kept].sum()
    np.testing.assert_allclose(frequencies(temperature=1.0, top_p=top_p), expected, atol=0.03)


def test_seeds_reproduce_samples_and_none_draws_anew():
    options = {"length": 8, "temperature": 2.0}
    runs = [
        kl.generate(step, PROMPTS, STATE, seed=seed, **options).ids.numpy().tolist() for seed in (1, 1, 2, None, None)
    ]
    assert runs[0] == runs[1] and runs[0] != runs[2] and runs[3] != runs[4]


def test_loop_ends_when_all_rows_have_ended():
    def counting(tokens, position, state):
        return tf.one_hot(tf.fill([len(tokens)], END), VOCABULARY), state + 1

    steps = []

    def counted(tokens, position, state):
        steps.append(int(position))
        return counting(tokens, position, state)

    kl.generate(counted, [4, 4], tf.zeros([2, 1]), length=50, end=END)
    assert steps == [0]
    kl.generate(counted, [4, 4], tf.zeros([2, 1]), length=50, end=END, beams=2)
    assert len(steps) < 10


def test_start_skips_positions_that_the_state_knows():
    positions = []

    def counted(tokens, position, state):
        positions.append(int(position))
        return step(tokens, position, state)

    skipped = kl.generate(counted, PROMPTS[2:3], state_of(OFFSETS[2:3]), length=8, end=END, start=2)
    assert positions[0] == 2
    full = kl.generate(step, PROMPTS[2:3], state_of(OFFSETS[2:3]), length=8, end=END)
    np.testing.assert_array_equal(skipped.ids, full.ids)


def test_padding_may_be_the_end():
    ids = kl.generate(step, PROMPTS[:1], state_of(OFFSETS[:1]), length=8, end=0, pad=0)
    length = int(ids.lengths[0])
    assert (ids.ids.numpy()[0, length:] == 0).all() and length <= 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 2}, "generate: invalid length: expected an integer from the prompt's number of ids, 3, received 2"),
        ({"beams": 0}, "invalid beams"),
        ({"beams": 2, "temperature": 1.0}, "invalid temperature: expected 0 with beams"),
        ({"length_penalty": -1}, "invalid length_penalty"),
        ({"top_k": 0}, "invalid top_k"),
        ({"top_p": 1.5}, "invalid top_p"),
    ],
)
def test_invalid_argument_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        kl.generate(step, PROMPTS, STATE, **{"length": 8, **options})


def test_wrong_step_is_named():
    with pytest.raises(
        ValueError, match=r"invalid logits of step: expected shape \(n, vocabulary\), received \(7, 1, 6\)"
    ):
        kl.generate(lambda *arguments: (step(*arguments)[0][:, None], STATE), PROMPTS, STATE, length=8)
    with pytest.raises(ValueError, match=r"another structure of state: expected \{.*\}, received \(\)"):
        kl.generate(lambda *arguments: (step(*arguments)[0], ()), PROMPTS, STATE, length=8)


def test_cached_attention_generates_what_the_whole_model_says():
    keras.utils.set_random_seed(0)
    embedding = keras.layers.Embedding(9, 16, embeddings_initializer="normal")
    attention = kl.layers.CachedAttention(num_heads=2, key_dim=8)
    head = keras.layers.Dense(9, kernel_initializer=keras.initializers.RandomNormal(stddev=1.0))

    def whole(ids):
        x = embedding(ids)
        return head(x + attention(x, x, use_causal_mask=True))

    ids = np.array([[1, 0, 0, 0, 0, 0], [2, 3, 0, 0, 0, 0]])
    whole(ids)

    def cached(tokens, position, cache):
        x = embedding(tokens[:, None])
        y, cache = attention.step(x, cache, position)
        return head(x + y)[:, 0], cache

    found = kl.generate(cached, ids[:, :2], attention.new_cache(2, 6), length=6)
    expected = ids.copy()
    for at in range(1, 6):
        logits = np.array(whole(expected))[:, at - 1]
        logits[:, 0] = -np.inf
        expected[:, at] = np.where(ids[:, at] > 0, ids[:, at], logits.argmax(1))
    np.testing.assert_array_equal(found.ids, expected)

    found = kl.generate(cached, ids[:, :2], attention.new_cache(2, 6), length=6, beams=3)
    chances = np.array(keras.ops.log_softmax(whole(found.ids)[:, :-1] + np.where(np.arange(9) == 0, -1e9, 0.0)))
    following = np.take_along_axis(chances, found.ids.numpy()[:, 1:, None], 2)[..., 0]
    np.testing.assert_allclose(found.scores, np.where(ids[:, 1:] > 0, 0, following).sum(1), rtol=1e-4)
