"""Wrong parameters of later stages are found before training."""

import pytest

import kerasline as kl

COLUMNS = {
    "miles": [float(n % 17) for n in range(100)],
    "tip": [n % 2 for n in range(100)],
    "town": ["Rome", "Oslo"] * 50,
    "score": [1.0] * 100,
}


def preprocessing():
    import keras

    miles = keras.Input((1,), name="miles")
    return keras.Model({"miles": miles}, {"miles": keras.layers.Rescaling(0.1)(miles)})


def build_model(inputs, hp):
    import keras

    model = keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid", name="score")(inputs["miles"]))
    model.compile("sgd", "binary_crossentropy", metrics=[keras.metrics.AUC(name="area")])
    return model


def pipeline(stage=None, **parameters):
    """Return a pipeline with parameters of one stage, or of several: `pipeline(Trainer={"epochs": 2})`."""
    by_stage = {stage: parameters} if stage else parameters

    def given(name):
        return by_stage.get(name, {})

    examples = kl.InMemoryExampleGen(COLUMNS)
    prepared = kl.Transform(examples, function=preprocessing, label="tip")
    model = kl.ModelBuilder(prepared, function=build_model)
    trainer = kl.Trainer(examples, prepared, model, tensorboard=False, **given("Trainer"))
    trained = trainer.outputs["trained_model"]
    statistics = kl.StatisticsGen(examples, **given("StatisticsGen"))
    schema = kl.ImportSchemaGen(**given("SchemaGen")) if given("SchemaGen") else kl.SchemaGen(statistics)
    exporter = kl.Exporter(prepared, trained, examples, **given("Exporter"))
    nodes = [
        kl.ExampleValidator(statistics, schema, **given("ExampleValidator")),
        kl.Evaluator(examples, prepared, trained, **given("Evaluator")),
        kl.Explainer(examples, prepared, trained, **given("Explainer")),
        kl.InfraValidator(exporter, examples, **given("InfraValidator")),
        kl.BulkInferrer(exporter, examples, **given("BulkInferrer")),
        kl.Pusher(exporter, **{"destination": "served", **given("Pusher")}),
    ]
    return kl.Pipeline("checked", nodes)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A root with the outputs of all stages before Trainer."""
    folder = tmp_path_factory.mktemp("root")
    before = ["ExampleGen", "StatisticsGen", "SchemaGen", "ExampleValidator", "Transform", "ModelBuilder"]
    kl.run(pipeline(), root=folder, nodes=before).raise_if_failed()
    return folder


@pytest.mark.parametrize(
    ("stage", "parameters", "message"),
    [
        ("Evaluator", {"split": "tset"}, "Evaluator.split: the data has no split 'tset'; did you mean 'test'?"),
        ("Explainer", {"split": "tset"}, "Explainer.split: the data has no split 'tset'"),
        ("Exporter", {"split": "tset"}, "Exporter.split: the data has no split 'tset'"),
        ("BulkInferrer", {"split": "tset"}, "BulkInferrer.split: the data has no split 'tset'"),
        ("InfraValidator", {"split": "tset"}, "InfraValidator.split: the data has no split 'tset'"),
        ("Evaluator", {"task": "ranking"}, "Evaluator.query: the task 'ranking' needs the column"),
        ("InfraValidator", {"command": "server {prt}"}, "InfraValidator.command: no placeholder {prt}"),
        ("Pusher", {"destination": "s4://models"}, "Pusher.destination s4://models"),
        ("Trainer", {"replicas": 2}, "Trainer.replicas: requires distribution=mirrored"),
    ],
)
def test_declarations_are_checked_before_any_stage_runs(stage, parameters, message, tmp_path):
    with pytest.raises(kl.KeraslineError) as caught:
        kl.run(pipeline(stage, **parameters), root=tmp_path)
    assert message in str(caught.value)
    assert not (tmp_path / "artifacts").exists() or not list((tmp_path / "artifacts").rglob("examples.json"))


@pytest.mark.parametrize(
    ("stage", "parameters", "message"),
    [
        ("Trainer", {"eval_split": "evl"}, "Trainer.eval_split: the data has no split 'evl'; did you mean 'eval'?"),
        ("Evaluator", {"slices": ["twon"]}, "Evaluator.slices: no column 'twon'; did you mean 'town'?"),
        ("Evaluator", {"query": "twon"}, "Evaluator.query: the data has no column 'twon'"),
        ("Evaluator", {"thresholds": {"acuracy": {"min": 0.5}}}, "Evaluator.thresholds: the model has no metric"),
        ("Evaluator", {"metrics": ["AUCC"]}, "Evaluator.metrics: Keras has no metric 'AUCC'; did you mean 'AUC'?"),
        ("Explainer", {"features": ["town"]}, "Explainer.features: the model uses no column 'town'"),
        ("Explainer", {"output": "scor"}, "Explainer.output: the model has no output 'scor'; did you mean 'score'?"),
        ("Explainer", {"classes": ["7"]}, "Explainer.classes: no class '7'"),
        ("Explainer", {"metric": "mean_square"}, "Explainer.metric: no metric 'mean_square'"),
        ("Explainer", {"baseline": {"town": 1}}, "Explainer.baseline: no differentiable input 'town'"),
        ("Exporter", {"max_quality_loss": {"acuracy": 0.1}}, "Exporter.max_quality_loss: no metric 'acuracy'"),
        ("BulkInferrer", {"keep": ["twon"]}, "BulkInferrer.keep: the data has no column 'twon'"),
        ("BulkInferrer", {"keep": ["score"]}, "BulkInferrer.keep: 'score' is also an output of the model"),
    ],
)
def test_artifacts_are_checked_before_training(stage, parameters, message, root):
    summary = kl.run(pipeline(stage, **parameters), root=root, report=False)
    trainer = summary.execution("Trainer")
    assert trainer.state == "failed" and message in trainer.message
    assert summary.execution("Evaluator").state == "skipped"


def test_stage_that_runs_alone_checks_the_stages_after_it(root):
    wrong = pipeline("Evaluator", thresholds={"areas": {"min": 0.5}})
    summary = kl.run(wrong, root=root, nodes=["Trainer"], report=False)
    assert summary.execution("Trainer").message.startswith("not started: Evaluator.thresholds: the model has no metric")


@pytest.mark.slow
def test_right_parameters_pass(root):
    right = pipeline("Evaluator", thresholds={"area": {"min": 0.0}, "accuracy": {"min": 0.0}}, slices=["town"])
    kl.run(right, root=root, nodes=["Trainer"], report=False).raise_if_failed()


@pytest.mark.parametrize(
    ("stage", "parameters", "message"),
    [
        ("StatisticsGen", {"slices": ["twon"]}, "StatisticsGen.slices: no column 'twon'; did you mean 'town'?"),
        ("ExampleValidator", {"severity": {"twon": "error"}}, "ExampleValidator.severity: 'twon' is neither"),
        ("ExampleValidator", {"environment": "SERVING"}, "ExampleValidator.environment: the schema has no environment"),
    ],
)
def test_mistakes_in_the_data_branch_stop_the_run_before_transform(stage, parameters, message, tmp_path):
    summary = kl.run(pipeline(stage, **parameters), root=tmp_path, report=False)
    assert summary.execution("Transform").message.startswith(f"not started: {message}")
    assert summary.execution("Trainer").state == "skipped"
    assert len(summary.failures) == 1 and summary.failures[0].startswith(message)


def test_data_branch_that_is_not_part_of_the_run_does_not_stop_it(tmp_path):
    wrong = pipeline("StatisticsGen", slices=["twon"])
    kl.run(wrong, root=tmp_path, nodes=["ExampleGen"], report=False)
    assert kl.run(wrong, root=tmp_path, nodes=["Transform"], report=False).state == "succeeded"


def test_curated_schema_is_read_when_the_run_begins(tmp_path):
    path = tmp_path / "curated.pbtxt"
    path.write_text('default_environment: "TRAINING"')
    wrong = pipeline(SchemaGen={"schema_file": str(path)}, ExampleValidator={"environment": "TRAINNG"})
    with pytest.raises(kl.KeraslineError, match="no environment 'TRAINNG'; did you mean 'TRAINING'?"):
        kl.run(wrong, root=tmp_path / "runs")
    path.write_text("feature {")
    with pytest.raises(kl.KeraslineError, match="curated.pbtxt: not a Schema"):
        kl.run(wrong, root=tmp_path / "runs")


def test_message_names_its_stage_once(root):
    wrong = pipeline("Trainer", eval_split="evl")
    summary = kl.run(wrong, root=root, nodes=["Trainer"], report=False)
    with pytest.raises(kl.KeraslineError, match=r"failed: Trainer\.eval_split: the data"):
        summary.raise_if_failed()
