"""Two quick stages with enough files that publishing them takes a while."""

import hashlib
import os

from kerasline.components.core.artifacts import Report
from kerasline.components.core.component import Component, Input, Output, Parameter
from kerasline.pipeline.dag import Pipeline


class Make(Component):
    """Writes files in folders, some of them empty, and an output without files."""

    made: Output[Report]
    nothing: Output[Report]
    files: Parameter[int] = 12
    kilobytes: Parameter[int] = 1500

    def run(self, inputs, outputs, context):
        for number in range(self.files):
            folder = outputs.made.path / f"part{number % 3}"
            folder.mkdir(exist_ok=True)
            (folder / f"{number}.bin").write_bytes(os.urandom(1024) * self.kilobytes)
        (outputs.made.path / "empty.bin").touch()


class Sum(Component):
    """Computes one digest of all files, and their number."""

    made: Input[Report]
    nothing: Input[Report]
    digest: Output[Report]

    def run(self, inputs, outputs, context):
        assert inputs.nothing.path.is_dir()
        files = sorted(p for p in inputs.made.path.rglob("*") if p.is_file())
        digest = hashlib.sha256(b"".join(p.read_bytes() for p in files)).hexdigest()
        (outputs.digest.path / "digest.txt").write_text(digest)
        return {"files": len(files)}


def pipeline(settings):
    make = Make()
    return Pipeline("bulky", [Sum(make.outputs["made"], make.outputs["nothing"])])
