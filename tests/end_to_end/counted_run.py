"""Run a recipe as `kerasline run` does, and write to a JSON file what the run cost, in counts that no machine changes.

python tests/end_to_end/counted_run.py COUNTS.json run penguins ...

graphs       graphs of functions that TensorFlow traced
conversions  functions that AutoGraph converted
processes    names of the programs started
models       largest number of models with weights that were alive when a stage had ended
modules      modules that were imported
"""

import gc
import json
import os
import sys
from pathlib import Path

COUNTS = {"graphs": 0, "conversions": 0, "models": 0, "processes": []}


def count_processes(event, arguments):
    if event in ("subprocess.Popen", "os.posix_spawn"):
        COUNTS["processes"].append(os.path.basename(os.fsdecode(arguments[0])))
    elif event in ("os.fork", "os.forkpty"):
        COUNTS["processes"].append("fork")


def count_calls(owner, method, name):
    """Count the calls of a method."""
    original = getattr(owner, method)

    def counted(*args, **kwargs):
        COUNTS[name] += 1
        return original(*args, **kwargs)

    setattr(owner, method, counted)


def count_models(execute):
    """Count the models with weights that are alive after each stage."""

    def counted(self, name):
        execution = execute(self, name)
        if "keras" in sys.modules:
            import keras

            gc.collect()
            COUNTS["models"] = sum(isinstance(one, keras.Model) and bool(one.weights) for one in gc.get_objects())
        return execution

    return counted


def main():
    counts_file, *arguments = sys.argv[1:]
    sys.addaudithook(count_processes)
    from tensorflow.python.autograph.pyct.transpiler import PyToPy
    from tensorflow.python.framework.func_graph import FuncGraph

    from kerasline.pipeline.commands.app import main as command_line
    from kerasline.pipeline.executor import Executor

    count_calls(FuncGraph, "__init__", "graphs")
    count_calls(PyToPy, "transform_function", "conversions")
    Executor.execute = count_models(Executor.execute)
    sys.argv[1:] = arguments
    try:
        command_line()
    finally:
        Path(counts_file).write_text(json.dumps({**COUNTS, "modules": len(sys.modules)}))


if __name__ == "__main__":
    main()
