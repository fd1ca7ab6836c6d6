"""A pipeline that judges a number and receives the last number that it blessed."""

from kerasline.components.core.artifacts import Blessing, Report
from kerasline.components.core.component import Component, Input, LastBlessed, Output, Parameter
from kerasline.pipeline.dag import Pipeline


class Make(Component):
    report: Output[Report]
    number: Parameter[int]

    def run(self, inputs, outputs, context):
        (outputs.report.path / "number.txt").write_text(str(self.number))


class Judge(Component):
    """Blesses numbers that are not negative."""

    report: Input[Report]
    earlier: Input[Report] = None
    blessing: Output[Blessing]

    def run(self, inputs, outputs, context):
        numbers = [int((r.path / "number.txt").read_text()) if r else None for r in (inputs.report, inputs.earlier)]
        blessed = numbers[0] >= 0
        outputs.blessing.write_json(Blessing.FILE, {"blessed": blessed, "rules": []})
        return {"number": numbers[0], "against": numbers[1]}


def judged(number):
    return Pipeline("judged", [Judge(Make(number=number), earlier=LastBlessed("report"))])
