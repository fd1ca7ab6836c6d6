"""Errors of other libraries in one line: the cause, without frames, node names and whole tracebacks."""

import pytest

from kerasline.components.core.errors import named_cause, one_line

FRAMES = """Graph execution error:

Detected at node while/model/mine/PyFunc defined at (most recent call last):
  File "/site-packages/keras/src/layers/layer.py", line 1002, in __call__

  File "/home/me/trips.py", line 23, in call

"""
BEAM = """Traceback (most recent call last):
  File "/site-packages/apache_beam/runners/common.py", line 1508, in process
    return self.do_fn_invoker.invoke_process(windowed_value)
           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  File "/home/me/trips.py", line 9, in fare
    raise mine.OddError("too odd")
mine.OddError: too odd [while running 'Evaluate/ParDo(Predict)']
"""
DATASET = (
    "{{function_node __wrapped__IteratorGetNext_output_types_4_device_/job:localhost/replica:0/task:0/device:CPU:0}} "
    "Error in user-defined function passed to ParallelMapDatasetV2:94 transformation with iterator: "
    "Iterator::Root::Prefetch::ParallelMapV2: StringToNumberOp could not correctly convert string: oops\n"
    "\t [[{{node model/parse/StringToNumber}}]] [Op:IteratorGetNext] name: "
)
ROOTS = """2 root error(s) found.
  (0) INVALID_ARGUMENT:  indices[0,0] = 12 is not in [0, 10)
\t [[{{node model/towns/GatherV2}}]]
\t [[model/towns/_3]]
  (1) INVALID_ARGUMENT:  indices[0,0] = 12 is not in [0, 10)
\t [[{{node model/towns/GatherV2}}]]
0 successful operations.
0 derived errors ignored. [Op:__inference_run_12]"""
KERAS = (
    "Exception encountered when calling Mine.call().\n\n\x1b[1mtown\x1b[0m\n\nArguments received by Mine.call():\n"
    "  • x=tf.Tensor(shape=(32, 2), dtype=float32)"
)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (f"{FRAMES}Matrix size-incompatible: [32,2], [3,1]\n\t [[{{{{node a/MatMul}}}}]] [Op:__inference_run_3]", None),
        (DATASET, "StringToNumberOp could not correctly convert string: oops"),
        (ROOTS, "indices[0,0] = 12 is not in [0, 10)"),
        (BEAM, "OddError: too odd"),
        (KERAS, "Exception encountered when calling Mine.call(). town"),
        (f"{FRAMES}OddError: too odd\n{BEAM}\n\n\t [[{{{{node a/b}}}}]]", "OddError: too odd"),
        ("plain text", "plain text"),
        ("", ""),
    ],
)
def test_one_line_is_the_cause(text, cause):
    assert one_line(RuntimeError(text)) == (cause if cause is not None else "Matrix size-incompatible: [32,2], [3,1]")


def test_long_text_keeps_its_beginning_and_its_end():
    line = one_line("the beginning " + "middle " * 200 + "the end", most=100)
    assert len(line) <= 100 and line.startswith("the beginning") and line.endswith("the end") and " ... " in line


def test_cause_has_the_type_of_the_original_error():
    with pytest.raises(RuntimeError) as caught:
        try:
            raise KeyError(KERAS)
        except KeyError as error:
            raise RuntimeError(f"Unable to build the model. Exception encountered:\n'{error}'") from error
    assert named_cause(caught.value) == "KeyError: Exception encountered when calling Mine.call(). town"
    assert named_cause(RuntimeError(BEAM)) == "OddError: too odd"
    assert (named_cause(KeyError("town")), named_cause(ValueError())) == ("KeyError: 'town'", "ValueError")
