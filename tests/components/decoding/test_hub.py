"""Generation with KerasHub's task models, against their own `generate`."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasline import decoding

keras_hub = pytest.importorskip("keras_hub", reason="KerasHub is not installed")
LENGTH, END = 10, 7
IDS = np.array(
    [[5, 3, 2, 0, 0, 0, 0, 0, 0, 0], [4, 0, 0, 0, 0, 0, 0, 0, 0, 0], [9, 8, 7, 1, 0, 0, 0, 0, 0, 0]], "int32"
)
MASK = IDS > 0


def lively(model):
    """Give weights that are larger than KerasHub's, so that outputs differ from id to id."""
    generator = np.random.default_rng(0)
    for weight in model.weights:
        if len(weight.shape) > 1:
            weight.assign(generator.normal(scale=0.4, size=weight.shape))
    return model


@pytest.fixture(scope="module")
def causal():
    options = {"num_layers": 2, "num_heads": 2, "hidden_dim": 16, "intermediate_dim": 32, "max_sequence_length": LENGTH}
    backbone = keras_hub.models.GPT2Backbone(vocabulary_size=20, **options)
    return lively(keras_hub.models.GPT2CausalLM(backbone, preprocessor=None))


@pytest.fixture(scope="module")
def translator():
    options = {"num_layers": 1, "num_heads": 2, "hidden_dim": 16, "intermediate_dim": 32, "max_sequence_length": LENGTH}
    backbone = keras_hub.models.BartBackbone(vocabulary_size=20, **options)
    return lively(keras_hub.models.BartSeq2SeqLM(backbone, preprocessor=None))


INPUTS = {"token_ids": IDS, "padding_mask": MASK}
BOTH = {
    "encoder_token_ids": np.arange(18).reshape(3, 6) % 19 + 1,
    "encoder_padding_mask": np.ones((3, 6), bool),
    "decoder_token_ids": IDS,
    "decoder_padding_mask": MASK,
}


def hub_ids(model, inputs, sampler, end):
    model.compile(sampler=sampler)
    found = model.generate_step({name: tf.constant(value) for name, value in inputs.items()}, end and [end])
    return next(
        np.array(value) for name, value in found.items() if name.endswith("token_ids") and "encoder" not in name
    )


@pytest.mark.parametrize("name", ["causal", "translator"])
@pytest.mark.parametrize("beams", [1, 4])
def test_ids_are_those_of_kerashub(name, beams, request):
    model, inputs = request.getfixturevalue(name), INPUTS if name == "causal" else BOTH
    sampler = "greedy" if beams == 1 else keras_hub.samplers.BeamSampler(num_beams=beams)
    found = decoding.generate_with_hub(model, inputs, beams=beams)
    for row in range(3):  # one by one: beams of KerasHub mix up prompts of different lengths
        alone = {part: value[[row]] for part, value in inputs.items()}
        np.testing.assert_array_equal(found.ids[row], hub_ids(model, alone, sampler, None)[0])
    compiled = model.sampler
    decoding.generate_with_hub(model, inputs)
    assert model.sampler is compiled and len(set(found.ids.numpy()[0])) > 3


def test_row_ends_at_its_end(causal):
    open_ended = decoding.generate_with_hub(causal, INPUTS)
    end = int(open_ended.ids[0, 5])
    found = decoding.generate_with_hub(causal, INPUTS, end=end)
    first = 3 + open_ended.ids.numpy()[0, 3:].tolist().index(end)
    np.testing.assert_array_equal(found.ids[0, : first + 1], open_ended.ids[0, : first + 1])
    assert found.lengths[0] == first + 1 and not found.ids.numpy()[0, first + 1 :].any()
    for row in range(3):
        alone = decoding.generate_with_hub(causal, {name: value[[row]] for name, value in INPUTS.items()}, end=end)
        np.testing.assert_array_equal(alone.ids[0], found.ids[row])


def test_exported_graph_gives_the_same_ids(causal, tmp_path):
    def ids(token_ids, padding_mask):
        inputs = {"token_ids": token_ids, "padding_mask": padding_mask}
        return decoding.generate_with_hub(causal, inputs, end=END, beams=2, length_penalty=1.0).ids

    archive = keras.export.ExportArchive()
    archive.track(causal)
    signature = [tf.TensorSpec([None, LENGTH], tf.int32), tf.TensorSpec([None, LENGTH], tf.bool)]
    archive.add_endpoint("serve", ids, input_signature=signature)
    archive.write_out(str(tmp_path), verbose=False)
    restored = tf.saved_model.load(str(tmp_path))
    np.testing.assert_array_equal(restored.serve(IDS, MASK), ids(tf.constant(IDS), tf.constant(MASK)))


@pytest.mark.parametrize("beams", [1, 3])
def test_caches_of_transformer_decoders_work_in_steps(beams):
    keras.utils.set_random_seed(0)
    embedding = keras.layers.Embedding(9, 16, embeddings_initializer=keras.initializers.RandomNormal(stddev=1.0))
    decoder = keras_hub.layers.TransformerDecoder(intermediate_dim=32, num_heads=2)
    head = keras.layers.Dense(9, kernel_initializer=keras.initializers.RandomNormal(stddev=1.0))
    head(decoder(embedding(IDS % 9)))

    def step(tokens, position, cache):
        x = embedding(tokens[:, None])
        x, cache = decoder(x, self_attention_cache=cache, self_attention_cache_update_index=position)
        return head(x)[:, 0], cache

    found = decoding.generate(step, [1, 2, 3], tf.zeros([3, 2, LENGTH, 2, 8]), length=LENGTH, beams=beams, pad=-1)
    chances = keras.ops.log_softmax(head(decoder(embedding(found.ids))))[:, :-1]
    following = np.take_along_axis(np.array(chances), found.ids.numpy()[:, 1:, None], 2)
    np.testing.assert_allclose(found.scores, following.sum((1, 2)), rtol=1e-4)


def test_sampling_is_seeded_by_row(causal):
    found = decoding.generate_with_hub(causal, INPUTS, temperature=2.0, top_k=5, seed=np.arange(3))
    alone = decoding.generate_with_hub(
        causal, {name: value[[2]] for name, value in INPUTS.items()}, temperature=2.0, top_k=5, seed=[2]
    )
    np.testing.assert_array_equal(alone.ids[0], found.ids[2])


def test_other_models_are_refused():
    with pytest.raises(ValueError, match="generate_with_hub: invalid model: expected a CausalLM or Seq2SeqLM"):
        decoding.generate_with_hub(keras.Sequential(), INPUTS)
