"""A pipeline that judges a model and pushes it unless it was refused, without TensorFlow."""

from kerasline.components.core.artifacts import Blessing, Report
from kerasline.components.core.component import Component, Input, Output, Parameter
from kerasline.components.core.errors import DataError, StageSkipped
from kerasline.pipeline.dag import Pipeline


class Judge(Component):
    blessing: Output[Blessing]
    accuracy: Parameter[float] = 0.5

    def run(self, inputs, outputs, context):
        kept = self.accuracy >= 0.9
        why = None if kept else f"accuracy {self.accuracy} < 0.9 <!channel>"
        rule = {"rule": "accuracy", "kept": kept, "why": why}
        outputs.blessing.write_json(Blessing.FILE, {"blessed": kept, "rules": [rule]})
        return {"blessed": kept}


class Push(Component):
    blessing: Input[Blessing]
    pushed: Output[Report]
    fail: Parameter[bool] = False

    def run(self, inputs, outputs, context):
        if self.fail:
            raise DataError("the disk is full; free some space")
        if not inputs.blessing.blessed:
            raise StageSkipped(f"model refused: {'; '.join(inputs.blessing.refusals())}")


def pipeline(settings):
    return Pipeline("judging", [Push(Judge())])
