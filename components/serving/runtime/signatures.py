"""Match a request with a signature of the model."""

from __future__ import annotations

from kerasline.components.models.session import SavedModelSession
from kerasline.components.models.signatures import DEFAULT_SIGNATURE, Signature, TensorSpec
from kerasline.components.serving.runtime.errors import invalid


def find_signature(session: SavedModelSession, name: str) -> Signature:
    """Return the signature with this name, or the default one for an empty name.

    Raises:
        RequestError: INVALID_ARGUMENT if the model has no such signature.
    """
    found = session.signatures.get(name or DEFAULT_SIGNATURE)
    if found is None:
        raise invalid(f'Serving signature name: "{name or DEFAULT_SIGNATURE}" not found in signature def')
    return found


def check_shape(shape: tuple[int, ...], name: str, spec: TensorSpec) -> None:
    """Raise INVALID_ARGUMENT unless the input `name` accepts an array of this shape."""
    expected = spec.shape
    if expected is None or shape == expected:
        return
    if len(shape) != len(expected) or any(e is not None and s != e for s, e in zip(shape, expected)):
        received = "[" + ",".join(map(str, shape)) + "]"
        raise invalid(f"input {name}: expected shape {spec.text()}, received {received}")
