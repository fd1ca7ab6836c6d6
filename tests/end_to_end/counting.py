"""Texts that count, from which a small language model learns to go on, and its settings."""

import numpy as np

NUMBERS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
SPLITS = '{"train": 8, "eval": 1, "test": 1}'
SMALL = {
    "ExampleGen.splits": SPLITS,
    "ModelBuilder.hyperparameters.units": 32,
    "ModelBuilder.hyperparameters.heads": 2,
    "ModelBuilder.hyperparameters.layers": 1,
    "ModelBuilder.hyperparameters.learning_rate": 0.02,
    "ModelBuilder.hyperparameters.warm_up_steps": 5,
    "ModelBuilder.hyperparameters.decay_steps": 200,
    "Trainer.batch_size": 2,
    "Trainer.epochs": 15,
}


def write_counting(file, numbers=NUMBERS):
    """Write a table of texts that count from any number on, and after the last go on with the first."""
    rng = np.random.default_rng(5)
    counted = numbers * 4
    rows = [" ".join(counted[start : start + size]) for start in range(10) for size in rng.integers(3, 30, 40)]
    file.write_text("\n".join(["text", *rows]))
    return file


def write_preset(folder):
    """Write the KerasHub preset of a small GPT-2 with random weights, and return the folder."""
    import keras
    import keras_hub

    keras.utils.set_random_seed(3)
    merges = ["o n", "on e", "t w", "tw o"]
    tokens = [*map(chr, range(33, 127)), "Ġ", *(merge.replace(" ", "") for merge in merges), "<|endoftext|>"]
    tokenizer = keras_hub.models.GPT2Tokenizer(
        vocabulary={token: number for number, token in enumerate(tokens)}, merges=merges
    )
    options = {"num_layers": 1, "num_heads": 2, "hidden_dim": 32, "intermediate_dim": 64, "max_sequence_length": 256}
    backbone = keras_hub.models.GPT2Backbone(vocabulary_size=len(tokens), **options)
    preprocessor = keras_hub.models.GPT2CausalLMPreprocessor(tokenizer, sequence_length=64)
    keras_hub.models.GPT2CausalLM(backbone, preprocessor).save_to_preset(folder)
    return folder
