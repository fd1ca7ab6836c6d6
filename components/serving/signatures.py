"""Which of a model's signatures a request asks for."""

from __future__ import annotations

from components.saved_model_session import SavedModelSession
from components.serving.errors import invalid
from components.signatures import DEFAULT_SIGNATURE, Signature


def find_signature(session: SavedModelSession, name: str) -> Signature:
    """The signature of that name, the default one where it is empty. Raises INVALID_ARGUMENT."""
    found = session.signatures.get(name or DEFAULT_SIGNATURE)
    if found is None:
        raise invalid(f'Serving signature name: "{name or DEFAULT_SIGNATURE}" not found in signature def')
    return found
