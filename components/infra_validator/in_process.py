"""What the candidate answers without a server: by `tf.saved_model.load` and a call of its signature.

In a process of its own, for nothing is known of the candidate yet: an operation that aborts, or that never
returns, would take the pipeline with it. It is asked exactly what the server will be asked, in the same batches,
since the order of a sum, and so its last digit, depends on the number of rows.
"""

from __future__ import annotations

import os
import pickle
import queue
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kerasline.components.core import garbage_collection
from kerasline.components.infra_validator.answer import Answer, Rows
from kerasline.components.infra_validator.verdict import Refused
from kerasline.components.models.signatures import DEFAULT_SIGNATURE
from kerasline.components.processes.supervising import Supervised

LOADS = "the model loads in a process of its own"
ANSWERS = "the model answers in a process of its own"


class InProcess:
    """A process that answers what it was started with, in order; ended on leaving the context.

    Args:
        cases: rows of features each.
        folder: for the files that it needs.
    """

    def __init__(self, saved_model: Path, cases: Sequence[Rows], folder: Path, environment: Mapping[str, str]) -> None:
        (folder / "cases.pickle").write_bytes(pickle.dumps(list(cases)))
        reading, writing = os.pipe()
        command = [
            sys.executable,
            "-m",
            "kerasline.components.infra_validator.in_process",
            str(saved_model),
            str(folder / "cases.pickle"),
            str(writing),
        ]
        self._process = Supervised(command, folder / "in-process.log", environment, descriptors=[writing])
        self._said: queue.Queue[Any] = queue.Queue()
        threading.Thread(target=self._listen, args=(reading,), daemon=True).start()

    def __enter__(self) -> InProcess:
        return self

    def __exit__(self, *_error: Any) -> None:
        self._process.stop()

    def wait_until_loaded(self, seconds: float) -> None:
        """Raises Refused where the model cannot be loaded, or ends or holds up the process."""
        problem = self._next(seconds, LOADS, doing="it was loaded", too_late=f"it is not loaded after {seconds:g} s")
        if problem is not None:
            raise Refused(LOADS, f"it cannot be loaded: {problem}")

    def answer(self, name: str, seconds: float) -> Answer:
        """The answer to the next case, of that name. Raises Refused as `wait_until_loaded`."""
        doing, too_late = (
            f"it was asked about {name}, without a server",
            f"no answer within {seconds:g} s to {name}",
        )
        return self._next(seconds, ANSWERS, doing=doing, too_late=f"{too_late}, without a server")

    def _next(self, seconds: float, rule: str, *, doing: str, too_late: str) -> Any:
        try:
            said = self._said.get(timeout=seconds)
        except queue.Empty:
            raise Refused(rule, too_late, maybe_the_machine=True) from None
        if said is not EOFError:
            return said
        ending = self._process.ending(wait_seconds=5.0) or "closed its pipe"
        why = f"the model's process {ending} when {doing}{self._process.last_words()}"
        raise Refused(rule, why, maybe_the_machine="SIGKILL" in ending)

    def _listen(self, reading: int) -> None:
        with os.fdopen(reading, "rb") as pipe:
            try:
                while True:
                    self._said.put(pickle.load(pipe))
            except (EOFError, pickle.UnpicklingError, OSError):
                self._said.put(EOFError)


def without_keras() -> None:
    """Spares the import of Keras, half of TensorFlow's own: a SavedModel is run without it.

    TensorFlow imports it eagerly and goes on where it is not there.
    """
    sys.modules.setdefault("keras", None)


def _main(saved_model: str, cases: str, pipe: int) -> None:
    with os.fdopen(pipe, "wb") as said:

        def say(what: Any) -> None:
            pickle.dump(what, said)
            said.flush()

        without_keras()
        garbage_collection.spare_exit()
        import tensorflow as tf

        try:
            loaded = tf.saved_model.load(saved_model)
            function = loaded.signatures[DEFAULT_SIGNATURE]
        except Exception as error:
            say(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
            return
        say(None)
        specs = function.structured_input_signature[1]
        for rows in pickle.loads(Path(cases).read_bytes()):
            say(_answered(function, {name: tf.constant(rows[name], spec.dtype) for name, spec in specs.items()}))


def _answered(function: Any, tensors: Mapping[str, Any]) -> Answer:
    from kerasline.components.serving.runtime.errors import from_exception, invalid

    try:
        outputs = function(**tensors)
        return Answer({name: tensor.numpy() for name, tensor in outputs.items()})
    except Exception as error:
        # A shape that the signature does not take is a ValueError or TypeError here, and a bad request there.
        told = invalid(str(error)) if isinstance(error, (ValueError, TypeError)) else from_exception(error)
        return Answer(None, told.http_status, " ".join(str(told).split())[:300])


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
