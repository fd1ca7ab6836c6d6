"""Numbers of a day, and their sum.

A pipeline of quick stages that reads a file a day, for tests of runners.
"""

import time
from pathlib import Path

from kerasline import CsvExampleGen, StatisticsGen
from kerasline.components.core.artifacts import Examples, Report
from kerasline.components.core.component import Input, Output, component
from kerasline.components.core.errors import StageSkipped
from kerasline.pipeline.dag import Pipeline


@component
def Total(
    examples: Input[Examples],
    total: Output[Report],
    word: str = "plain",
    seconds: float = 0.0,
    marks: str = "",
    note: str = "{{ no template }} {% nor this",
):
    """Adds up the numbers after a few seconds, and appends a line to `marks`."""
    time.sleep(seconds)
    if marks:
        with open(marks, "a") as file:
            file.write("once\n")
    numbers = sum(sum(batch.column("number").to_pylist()) for batch in examples.batches("train"))
    (total.path / "word.txt").write_text(word)
    return {"total": numbers}


@component
def Publish(total: Input[Report], published: Output[Report], refuse: bool = False):
    """Publishes the total, unless that is refused."""
    if refuse:
        raise StageSkipped("refused on request")
    (published.path / "word.txt").write_text(Path(total.path, "word.txt").read_text())


def pipeline(settings) -> Pipeline:
    examples = CsvExampleGen("data/{YYYY}-{MM}-{DD}.csv", splits={"train": 1})
    return Pipeline("days", [StatisticsGen(examples), Publish(Total(examples))])
