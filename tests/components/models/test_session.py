"""A SavedModel in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.components.serving.saved_models import save_half_plus

# Keras is looked up last: it must still work after a session was opened without it.
OPEN = """
import os, sys
from pathlib import Path
import numpy as np
from kerasline.components.models.session import SavedModelSession
session = SavedModelSession(Path(sys.argv[1]))
assert session.call(session.signatures["serving_default"], [np.float32([2.0])])[0] == 3.0
assert "TF_USE_LEGACY_KERAS" not in os.environ
print(*sorted({name.partition(".")[0] for name in sys.modules} & {"keras", "pandas", "pyarrow", "apache_beam"}))
import tensorflow as tf
assert tf.keras.layers.Dense(1)(tf.ones([2, 3])).shape == (2, 1)
"""


@pytest.mark.slow
def test_session_imports_no_keras(tmp_path):
    save_half_plus(tmp_path / "half", 2.0)
    command = [sys.executable, "-c", OPEN, str(tmp_path / "half")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "\n"), done.stderr
