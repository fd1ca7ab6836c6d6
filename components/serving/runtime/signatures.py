"""Which of a model's signatures a request asks for."""

from __future__ import annotations

from kerasline.components.models.session import SavedModelSession
from kerasline.components.models.signatures import DEFAULT_SIGNATURE, Signature
from kerasline.components.serving.runtime.errors import invalid


def find_signature(session: SavedModelSession, name: str) -> Signature:
    """The signature of that name, the default one where it is empty. Raises INVALID_ARGUMENT."""
    found = session.signatures.get(name or DEFAULT_SIGNATURE)
    if found is None:
        raise invalid(f'Serving signature name: "{name or DEFAULT_SIGNATURE}" not found in signature def')
    return found
