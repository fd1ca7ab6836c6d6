"""The candidate's own answers, without a server: from a TensorFlow session with its graph.

They are computed in another process, because an operation of the candidate that aborts or never returns would
otherwise stop the pipeline. It receives the same batches as the server: the order of a sum, and so its last digit,
depends on the number of rows.
"""

from __future__ import annotations

import functools
import pickle
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kerasline.components.core import garbage_collection
from kerasline.components.core.errors import named_cause, one_line
from kerasline.components.infra_validator.cases import Answer, Rows
from kerasline.components.infra_validator.verdict import Refused
from kerasline.components.models.graph_operations import GraphOperations
from kerasline.components.models.op_libraries import import_op_libraries
from kerasline.components.models.row_independence import row_dependence
from kerasline.components.models.session import import_tensorflow
from kerasline.components.models.signatures import DEFAULT_SIGNATURE, signatures
from kerasline.components.processes.child import GuardedProcess, module_command
from kerasline.components.processes.parent import ResultPipe

LOADS = "the model loads in a process of its own"
ANSWERS = "the model answers in a process of its own"
ENDING_SECONDS = 5.0  # between the end of its messages and the end of the process


class InProcess:
    """A process that loads the model and answers the cases in order. It is a context manager that ends the process.

    Args:
        saved_model: the model.
        cases: the rows of each case.
        folder: a folder for temporary files.
        environment: variables added to this process's.
    """

    def __init__(self, saved_model: Path, cases: Sequence[Rows], folder: Path, environment: Mapping[str, str]) -> None:
        file = folder / "cases.pickle"
        file.write_bytes(pickle.dumps(list(cases)))
        command = module_command("kerasline.components.infra_validator.in_process", str(saved_model), str(file))
        self._process = GuardedProcess(command, folder / "in-process.log", environment, sends_results=True)

    def __enter__(self) -> InProcess:
        return self

    def __exit__(self, *_error: Any) -> None:
        self._process.stop()

    def wait_until_loaded(self, seconds: float) -> None:
        """Wait until the model is loaded.

        Raises:
            Refused: it cannot be loaded, or it crashes or blocks the process.
        """
        problem = self._next(seconds, LOADS, action="it was loaded", timeout=f"it is not loaded after {seconds:g} s")
        if problem is not None:
            raise Refused(LOADS, f"it cannot be loaded: {problem}")

    def answer(self, name: str, seconds: float) -> Answer:
        """Return the answer to the next case, which has this name.

        Raises:
            Refused: the model crashes or blocks the process.
        """
        timeout = f"no answer within {seconds:g} s to {name}, without a server"
        return self._next(seconds, ANSWERS, action=f"it answered {name}, without a server", timeout=timeout)

    def row_dependence(self, seconds: float) -> str | None:
        """Return how an answer depends on the other rows of its batch, or None. Call it after all answers."""
        try:
            return self._process.result(seconds)
        except (TimeoutError, EOFError):
            return f"unknown: the model did not execute batches of invented rows within {seconds:g} s"

    def _next(self, seconds: float, rule: str, *, action: str, timeout: str) -> Any:
        try:
            return self._process.result(seconds)
        except TimeoutError:
            raise Refused(rule, timeout, may_be_transient=True) from None
        except EOFError:
            ending = self._process.ending(ENDING_SECONDS) or "closed its pipe"
            why = f"the model's process {ending} while {action}{self._process.log.last_words()}"
            raise Refused(rule, why, may_be_transient="SIGKILL" in ending) from None


def _main(saved_model: str, cases: str) -> None:
    pipe = ResultPipe()
    garbage_collection.skip_at_exit()
    tf = import_tensorflow()
    session = tf.compat.v1.Session(graph=tf.Graph())
    try:
        import_op_libraries(Path(saved_model))
        with session.graph.as_default():
            # `tf.saved_model.load` cannot call a signature whose input names differ only in punctuation.
            graph = tf.compat.v1.saved_model.load(session, ["serve"], saved_model)
        definition = graph.signature_def[DEFAULT_SIGNATURE]
    except Exception as error:
        pipe.send(named_cause(error))
        return
    pipe.send(None)
    outputs = {name: info.name for name, info in definition.outputs.items()}
    requests = pickle.loads(Path(cases).read_bytes())
    for rows in requests:
        fed = {info.name: rows[name] for name, info in definition.inputs.items()}
        pipe.send(_answer(functools.partial(session.run, outputs, fed)))
    pipe.send(_row_dependence(session, graph, requests[0]))


def _answer(run: Callable[[], dict[str, Any]]) -> Answer:
    from kerasline.components.serving.runtime.errors import from_exception, invalid

    try:
        return Answer(run())
    except Exception as error:
        # An unsupported shape raises ValueError or TypeError here. The server reports it as a bad request.
        served = invalid(str(error)) if isinstance(error, (ValueError, TypeError)) else from_exception(error)
        return Answer(None, served.http_status, one_line(served))


def _row_dependence(session: Any, meta_graph: Any, real_rows: Rows) -> str | None:
    signature = signatures({DEFAULT_SIGNATURE: meta_graph.signature_def[DEFAULT_SIGNATURE]})[DEFAULT_SIGNATURE]
    tensors = [spec.tensor for spec in signature.outputs.values()]

    def call(arrays: Sequence[Any]) -> Any:
        return session.run(tensors, {spec.tensor: array for spec, array in zip(signature.inputs.values(), arrays)})

    rows = [[real_rows[name] for name in signature.inputs]]
    return row_dependence(call, signature, GraphOperations(meta_graph), rows)


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2])
