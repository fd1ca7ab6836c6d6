"""Status and metadata of models, as TensorFlow Serving's messages and their JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from kerasline.components.serving.runtime.errors import CODE_NUMBERS, invalid
from kerasline.components.serving.runtime.messages import STATES, messages
from kerasline.components.serving.runtime.models import Version

SIGNATURE_FIELD = "signature_def"


def status_message(versions: Iterable[Version]) -> Any:
    """Return a GetModelStatusResponse."""
    response = messages().GetModelStatusResponse()
    for version in versions:
        one = response.model_version_status.add(version=version.number, state=STATES[version.state])
        one.status.SetInParent()
        code, one.status.error_message = _status(version)
        one.status.error_code = CODE_NUMBERS[code]
    return response


def metadata_message(version: Version, fields: Sequence[str]) -> Any:
    """Return a GetModelMetadataResponse. Raise INVALID_ARGUMENT for fields other than `signature_def`."""
    if not fields:
        raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
    for field in fields:
        if field != SIGNATURE_FIELD:
            raise invalid(f"Metadata field {field} is not supported")
    response = messages().GetModelMetadataResponse()
    response.model_spec.name = version.model
    response.model_spec.version.value = version.number
    response.metadata[SIGNATURE_FIELD].Pack(_signatures(version))
    return response


def status_json(versions: Iterable[Version]) -> dict[str, Any]:
    """Return `status_message` as JSON. This works while TensorFlow, which the messages need, is still loading."""
    entries = []
    for version in versions:
        code, message = _status(version)
        status = {"error_code": code, "error_message": message}
        entries.append({"version": str(version.number), "state": version.state, "status": status})
    return {"model_version_status": entries}


def _status(version: Version) -> tuple[str, str]:
    """Return code and message: the error, or which signatures are not batched although they could be."""
    if version.error is not None:
        return version.error.code, str(version.error)
    return "OK", "; ".join(f"signature {name} is not batched: {why}" for name, why in version.unbatched.items())


def metadata_json(version: Version) -> dict[str, Any]:
    from google.protobuf import json_format

    signatures = json_format.MessageToDict(
        _signatures(version), preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return {
        "model_spec": {"name": version.model, "signature_name": "", "version": str(version.number)},
        "metadata": {SIGNATURE_FIELD: signatures},
    }


def _signatures(version: Version) -> Any:
    signatures = messages().SignatureDefMap()
    assert version.session is not None, "an available version has a session"
    for name, definition in version.session.definitions.items():
        signatures.signature_def[name].ParseFromString(definition.SerializeToString())
    return signatures
