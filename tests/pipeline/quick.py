"""A pipeline of quick stages without TensorFlow, with two branches that join."""

import time

from kerasline.components.core.artifacts import Report
from kerasline.components.core.component import Component, Input, Output, Parameter, component
from kerasline.components.core.errors import DataError
from kerasline.pipeline.dag import Pipeline

FACTOR = 3


def scale(number):
    return number * FACTOR


class Start(Component):
    report: Output[Report]
    number: Parameter[int] = 2
    seconds: Parameter[float] = 0.0

    def run(self, inputs, outputs, context):
        time.sleep(self.seconds)
        write(outputs.report, self.number)
        return {"number": self.number}


@component
def Left(report: Input[Report], left: Output[Report], seconds: float = 0.0, fail: bool = False):
    time.sleep(seconds)
    if fail:
        raise DataError("row 3 is upside down; turn it")
    write(left, scale(read(report)))


@component
def Right(report: Input[Report], right: Output[Report], seconds: float = 0.0, crash: bool = False):
    time.sleep(seconds)
    if crash:
        raise KeyError("oops")
    write(right, read(report) + 1)


@component
def Join(left: Input[Report], right: Input[Report], joined: Output[Report]):
    write(joined, read(left) * 100 + read(right))
    return {"joined": read(left) * 100 + read(right)}


def write(artifact, number):
    (artifact.path / "number.txt").write_text(str(number))


def read(artifact):
    return int((artifact.path / "number.txt").read_text())


def pipeline(settings):
    start = Start()
    return Pipeline("quick", [Join(Left(start), Right(start))])
