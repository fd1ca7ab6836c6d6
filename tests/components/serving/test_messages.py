"""The declared messages match those of tensorflow-serving-api."""

from __future__ import annotations

import importlib

import pytest

pytest.importorskip("tensorflow_serving", reason="tensorflow-serving-api is needed to compare with")
MODULES = (
    "model",
    "predict",
    "input",
    "classification",
    "regression",
    "get_model_metadata",
    "get_model_status",
    "model_management",
    "inference",
    "prediction_log",
    "status",
)


def original_messages() -> dict:
    found = {}
    for name in MODULES:
        module = importlib.import_module(f"tensorflow_serving.apis.{name}_pb2")
        found |= module.DESCRIPTOR.message_types_by_name
    return found


def shape(field) -> tuple:
    target = field.message_type or field.enum_type
    group = field.containing_oneof.name if field.containing_oneof else None
    return field.number, field.type, field.label, target.full_name if target else None, group


def test_fields_match_tensorflow_serving():
    from kerasline.components.serving.runtime.messages import _MESSAGES, messages

    original = original_messages()
    ours = {name: one.DESCRIPTOR for name, one in messages().by_name.items() if name in _MESSAGES}
    assert len(ours) >= 26
    for name, descriptor in ours.items():
        for field in descriptor.fields:
            assert shape(field) == shape(original[name].fields_by_name[field.name]), f"{name}.{field.name}"


def test_states_match_tensorflow_serving():
    from tensorflow_serving.apis import get_model_status_pb2

    from kerasline.components.serving.runtime.messages import STATES

    assert dict(get_model_status_pb2.ModelVersionStatus.State.items()) == STATES
