"""Metrics of answers during training: the model answers held-out rows after each epoch, as it will be served."""

from types import SimpleNamespace

import jiwer
import pytest
import sacrebleu

import kerasline as kl
from kerasline.components.core.errors import ParameterError
from tests.components import answering

TEXTS = {"answer": answering.translate, "reference": "target", "evaluate_answers": 1000}


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    columns = {split: answering.sentences(60, seed) for seed, split in enumerate(("train", "eval"))}
    return answering.untrained(
        tmp_path_factory.mktemp("untrained"),
        columns,
        answering.translation_preprocessing,
        answering.build_translator,
        "target_out",
    )


def trained(given, folder, **parameters):
    stage = kl.Trainer(given.examples, given.prepared, given.model, batch_size=16, **{**TEXTS, **parameters})
    done = stage.execute(folder)
    done.epochs = done.history.read_json("history.json")
    return done


@pytest.fixture(scope="module")
def translator(untrained, tmp_path_factory):
    return trained(untrained, tmp_path_factory.mktemp("trained"), epochs=4, text_metrics=["bleu", "wer"])


def test_metrics_of_answers_are_those_of_the_weights_of_the_epoch(untrained, translator):
    rows = untrained.columns["eval"]
    answers = answering.translate_by_numpy(translator.trained_model.load(), rows["source"])
    last = translator.epochs[-1]
    assert last["val_wer"] == pytest.approx(jiwer.wer(rows["target"], answers))
    assert last["val_bleu"] == pytest.approx(sacrebleu.corpus_bleu(answers, [rows["target"]]).score)
    assert last["val_wer"] < translator.epochs[0]["val_wer"] and "val_loss" in last
    assert translator.metrics["val_wer"] == last["val_wer"]


@pytest.mark.slow
def test_training_itself_is_unchanged(untrained, translator, tmp_path):
    parameters = {"answer": None, "evaluate_answers": None, "reference": None}
    plain = trained(untrained, tmp_path, epochs=4, **parameters)
    assert [epoch["loss"] for epoch in plain.epochs] == [epoch["loss"] for epoch in translator.epochs]


def test_training_stops_by_a_metric_of_answers(untrained, tmp_path):
    stopping = {"monitor": "val_exact_match", "patience": 1, "min_delta": 0.2}
    done = trained(untrained, tmp_path, epochs=30, early_stopping=stopping, evaluate_answers=20)
    values = [epoch["val_exact_match"] for epoch in done.epochs]
    assert len(done.epochs) < 30 and values[-1] <= max(values[:-1]) + 0.2
    best = done.metrics["best_epoch"]
    assert done.metrics["val_exact_match"] == values[best - 1] and best == len(values) - 1


def two_answers(model, features, prepared):
    answers = answering.translate(model, features, prepared)
    return {**answers, "again": answers["translation"]}


def test_metrics_of_several_answers_bear_their_names(untrained, tmp_path):
    references = {"translation": "target", "again": "target"}
    done = trained(
        untrained, tmp_path, steps=2, answer=two_answers, reference=references, text_metrics=["wer"], ema=0.9
    )
    (epoch,) = done.epochs
    assert epoch["val_translation_wer"] == epoch["val_again_wer"]


def test_boxes_are_judged_by_the_columns_of_true_boxes(tmp_path):
    pytest.importorskip("pycocotools")
    tables = {"train": answering.scenes(20), "eval": answering.scenes(20, 1)}
    given = answering.untrained(tmp_path, tables, answering.scene_preprocessing, answering.build_detector, "heat")
    parameters = {"answer": answering.detect, "reference": None, "task": "detection", "optimizer": "sgd"}
    done = trained(given, tmp_path / "t", steps=1, **parameters)
    assert done.epochs[-1]["val_ap_50"] > 0.9


def test_wrong_parameters_are_found_before_training(untrained):
    given = {"examples": untrained.examples, "preprocessing": untrained.prepared, "model": untrained.model}
    inputs = SimpleNamespace(**given, best=None)
    for parameters, message in (
        ({"answer": None}, "Trainer.evaluate_answers: expected the parameter `answer`"),
        ({"eval_split": None}, "Trainer.evaluate_answers: expected an eval_split"),
        ({"reference": "targt"}, "Trainer.reference: the data has no column 'targt'; did you mean 'target'"),
        ({"reference": None}, "Trainer.reference: name the column with the true value of the answers translation"),
        ({"text_metrics": ["bley"]}, "Trainer.text_metrics: no metric of texts 'bley'; did you mean 'bleu'"),
        ({"task": {"translation": "txt"}}, "Trainer.task: no task 'txt'"),
    ):
        stage = kl.Trainer(untrained.examples, untrained.prepared, untrained.model, **{**TEXTS, **parameters})
        with pytest.raises(ParameterError, match=message):
            stage.check(inputs)


@pytest.mark.slow
@pytest.mark.parametrize("where", [{"deterministic": True}, {"distribution": "mirrored", "replicas": 2}])
def test_answers_are_evaluated_in_a_process_of_its_own(untrained, tmp_path, where):
    done = trained(untrained, tmp_path, epochs=2, text_metrics=["wer"], **where)
    rows = untrained.columns["eval"]
    answers = answering.translate_by_numpy(done.trained_model.load(), rows["source"])
    assert done.epochs[-1]["val_wer"] == pytest.approx(jiwer.wer(rows["target"], answers))
