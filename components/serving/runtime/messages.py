"""The messages of TensorFlow Serving's gRPC interface.

The package that contains them, tensorflow-serving-api, depends on `tensorflow` and would install a second TensorFlow
next to tensorflow-cpu. The few messages are therefore declared here, with the names, numbers and types of TensorFlow
Serving. They use their own descriptor pool, so that the original classes can be loaded in the same process.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from google.protobuf.message import Message

TENSOR, EXAMPLE, SIGNATURE = "tensorflow.TensorProto", "tensorflow.Example", "tensorflow.SignatureDef"
ANY, INT64, CODE = "google.protobuf.Any", "google.protobuf.Int64Value", "tensorflow.error.Code"
# Fields of each message as (name, number, type). `*T` is repeated, `{T` a map from strings, `N|T` a member of oneof N.
_MESSAGES = {
    "ModelSpec": (
        ("name", 1, "string"),
        ("version", 2, f"version_choice|{INT64}"),
        ("version_label", 4, "version_choice|string"),
        ("signature_name", 3, "string"),
    ),
    "PredictRequest": (
        ("model_spec", 1, "ModelSpec"),
        ("inputs", 2, "{" + TENSOR),
        ("output_filter", 3, "*string"),
    ),
    "PredictResponse": (("model_spec", 2, "ModelSpec"), ("outputs", 1, "{" + TENSOR)),
    "ExampleList": (("examples", 1, "*" + EXAMPLE),),
    "ExampleListWithContext": (("examples", 1, "*" + EXAMPLE), ("context", 2, EXAMPLE)),
    "Input": (
        ("example_list", 1, "kind|ExampleList"),
        ("example_list_with_context", 2, "kind|ExampleListWithContext"),
    ),
    "Class": (("label", 1, "string"), ("score", 2, "float")),
    "Classifications": (("classes", 1, "*Class"),),
    "ClassificationResult": (("classifications", 1, "*Classifications"),),
    "ClassificationRequest": (("model_spec", 1, "ModelSpec"), ("input", 2, "Input")),
    "ClassificationResponse": (("model_spec", 2, "ModelSpec"), ("result", 1, "ClassificationResult")),
    "Regression": (("value", 1, "float"),),
    "RegressionResult": (("regressions", 1, "*Regression"),),
    "RegressionRequest": (("model_spec", 1, "ModelSpec"), ("input", 2, "Input")),
    "RegressionResponse": (("model_spec", 2, "ModelSpec"), ("result", 1, "RegressionResult")),
    "InferenceTask": (("model_spec", 1, "ModelSpec"), ("method_name", 2, "string")),
    "InferenceResult": (
        ("model_spec", 1, "ModelSpec"),
        ("classification_result", 2, "result|ClassificationResult"),
        ("regression_result", 3, "result|RegressionResult"),
    ),
    "MultiInferenceRequest": (("tasks", 1, "*InferenceTask"), ("input", 2, "Input")),
    "MultiInferenceResponse": (("results", 1, "*InferenceResult"),),
    "SignatureDefMap": (("signature_def", 1, "{" + SIGNATURE),),
    "GetModelMetadataRequest": (("model_spec", 1, "ModelSpec"), ("metadata_field", 2, "*string")),
    "GetModelMetadataResponse": (("model_spec", 1, "ModelSpec"), ("metadata", 2, "{" + ANY)),
    "StatusProto": (("error_code", 1, "enum " + CODE), ("error_message", 2, "string")),
    "ModelVersionStatus": (
        ("version", 1, "int64"),
        ("state", 2, "enum tensorflow.serving.ModelVersionStatus.State"),
        ("status", 3, "StatusProto"),
    ),
    "GetModelStatusRequest": (("model_spec", 1, "ModelSpec"),),
    "GetModelStatusResponse": (("model_version_status", 1, "*ModelVersionStatus"),),
    "ClassifyLog": (("request", 1, "ClassificationRequest"), ("response", 2, "ClassificationResponse")),
    "RegressLog": (("request", 1, "RegressionRequest"), ("response", 2, "RegressionResponse")),
    "PredictLog": (("request", 1, "PredictRequest"), ("response", 2, "PredictResponse")),
    "MultiInferenceLog": (("request", 1, "MultiInferenceRequest"), ("response", 2, "MultiInferenceResponse")),
    "PredictionLog": (
        ("classify_log", 2, "log_type|ClassifyLog"),
        ("regress_log", 3, "log_type|RegressLog"),
        ("multi_inference_log", 4, "log_type|MultiInferenceLog"),
        ("predict_log", 6, "log_type|PredictLog"),
    ),
}
STATES = {"UNKNOWN": 0, "START": 10, "LOADING": 20, "AVAILABLE": 30, "UNLOADING": 40, "END": 50}
_HEALTH = {
    "HealthCheckRequest": (("service", 1, "string"),),
    "HealthCheckResponse": (("status", 1, "enum grpc.health.v1.HealthCheckResponse.ServingStatus"),),
}
HEALTH_STATES = {"UNKNOWN": 0, "SERVING": 1, "NOT_SERVING": 2, "SERVICE_UNKNOWN": 3}
_PACKAGE = "tensorflow.serving"


@dataclass(frozen=True)
class Messages:
    """The message classes by name. They are built at run time, so their fields have no static types."""

    by_name: dict[str, type[Message]]

    def __getattr__(self, name: str) -> Any:
        """Return a message class, such as `messages().PredictRequest`."""
        try:
            return self.by_name[name]
        except KeyError:
            raise AttributeError(f"no message {name}") from None


@functools.cache
def messages() -> Messages:
    """Return the message classes, including those of gRPC's health check. This imports TensorFlow."""
    from google.protobuf import any_pb2, descriptor_pool, message_factory, wrappers_pb2
    from tensorflow.core.example import example_pb2
    from tensorflow.core.protobuf import error_codes_pb2, meta_graph_pb2

    pool = descriptor_pool.DescriptorPool()
    imports = (wrappers_pb2, any_pb2, example_pb2, meta_graph_pb2, error_codes_pb2)
    added: set[str] = set()
    for module in imports:
        _add_with_imports(pool, module.DESCRIPTOR, added)
    dependencies = [file for file in added if not file.startswith("google/protobuf/desc")]
    pool.Add(_file("kerasline/serving.proto", _PACKAGE, _MESSAGES, "ModelVersionStatus", "State", STATES, dependencies))
    pool.Add(
        _file(
            "kerasline/health.proto",
            "grpc.health.v1",
            _HEALTH,
            "HealthCheckResponse",
            "ServingStatus",
            HEALTH_STATES,
            [],
        )
    )
    names = {name: f"{_PACKAGE}.{name}" for name in _MESSAGES}
    names |= {name: f"grpc.health.v1.{name}" for name in _HEALTH}
    return Messages(
        {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(full)) for name, full in names.items()}
    )


def _add_with_imports(pool: Any, descriptor: Any, added: set[str]) -> None:
    from google.protobuf import descriptor_pb2

    if descriptor.name in added:
        return
    for dependency in descriptor.dependencies:
        _add_with_imports(pool, dependency, added)
    copy = descriptor_pb2.FileDescriptorProto()
    descriptor.CopyToProto(copy)
    pool.Add(copy)
    added.add(descriptor.name)


def _file(
    name: str,
    package: str,
    messages: Mapping[str, tuple[tuple[str, int, str], ...]],
    enum_of: str,
    enum: str,
    values: dict[str, int],
    imports: list[str],
) -> Any:
    from google.protobuf import descriptor_pb2

    file = descriptor_pb2.FileDescriptorProto(name=name, package=package, syntax="proto3", dependency=sorted(imports))
    for message_name, fields in messages.items():
        message = file.message_type.add(name=message_name)
        for field_name, number, kind in fields:
            _add_field(message, f".{package}", field_name, number, kind)
        if message_name == enum_of:
            kinds = message.enum_type.add(name=enum)
            for value, number in values.items():
                kinds.value.add(name=value, number=number)
    return file


def _add_field(message: Any, package: str, name: str, number: int, kind: str) -> None:
    field = message.field.add(name=name, number=number, label=1)
    if "|" in kind:
        group, kind = kind.split("|")
        groups = [one.name for one in message.oneof_decl]
        if group not in groups:
            message.oneof_decl.add(name=group)
            groups.append(group)
        field.oneof_index = groups.index(group)
    if kind.startswith("*"):
        field.label, kind = 3, kind[1:]
    if kind.startswith("{"):
        entry = message.nested_type.add(name="".join(w.capitalize() for w in name.split("_")) + "Entry")
        entry.options.map_entry = True
        _add_field(entry, package, "key", 1, "string")
        _add_field(entry, package, "value", 2, kind[1:])
        field.label, field.type, field.type_name = 3, 11, f"{package}.{message.name}.{entry.name}"
    elif kind.startswith("enum "):
        field.type, field.type_name = 14, "." + kind[5:]
    elif kind in ("string", "float", "int64"):
        field.type = {"string": 9, "float": 2, "int64": 3}[kind]
    else:
        field.type, field.type_name = 11, "." + kind if "." in kind else f"{package}.{kind}"
