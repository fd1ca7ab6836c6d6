"""The messages and services of TensorFlow Serving's gRPC interface, of gRPC's health check and of its reflection.

The package that contains TensorFlow Serving's, tensorflow-serving-api, depends on `tensorflow` and would install a
second TensorFlow next to tensorflow-cpu. The few messages are therefore declared here, with the names, numbers and
types of TensorFlow Serving. They use their own descriptor pool, so that the original classes can be loaded in the
same process.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from google.protobuf.descriptor_pool import DescriptorPool
    from google.protobuf.message import Message

_SERVING_PACKAGE, _HEALTH_PACKAGE, _REFLECTION_PACKAGE = "tensorflow.serving", "grpc.health.v1", "grpc.reflection.v1"
TENSOR, EXAMPLE, SIGNATURE = "tensorflow.TensorProto", "tensorflow.Example", "tensorflow.SignatureDef"
ANY, INT64, CODE = "google.protobuf.Any", "google.protobuf.Int64Value", "tensorflow.error.Code"
# Numbers of FieldDescriptorProto.Type.
_SCALARS = {"float": 2, "int64": 3, "int32": 5, "string": 9, "bytes": 12, "uint32": 13}
# Fields of each message as (name, number, type). `*T` is repeated, `{T` a map from strings, `N|T` a member of oneof N.
_MESSAGES: dict[str, tuple[tuple[str, int, str], ...]] = {
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
    "ReloadConfigRequest": (("config", 1, "ModelServerConfig"), ("metric_names", 2, "*string")),
    "ReloadConfigResponse": (("status", 1, "StatusProto"),),
    "ClassifyLog": (("request", 1, "ClassificationRequest"), ("response", 2, "ClassificationResponse")),
    "RegressLog": (("request", 1, "RegressionRequest"), ("response", 2, "RegressionResponse")),
    "PredictLog": (("request", 1, "PredictRequest"), ("response", 2, "PredictResponse")),
    "MultiInferenceLog": (("request", 1, "MultiInferenceRequest"), ("response", 2, "MultiInferenceResponse")),
    "SessionRunLog": (),
    "PredictionLog": (
        ("classify_log", 2, "log_type|ClassifyLog"),
        ("regress_log", 3, "log_type|RegressLog"),
        ("multi_inference_log", 4, "log_type|MultiInferenceLog"),
        ("session_run_log", 5, "log_type|SessionRunLog"),
        ("predict_log", 6, "log_type|PredictLog"),
    ),
}
# The configuration of models, which needs no message of TensorFlow.
_CONFIGURATION: dict[str, tuple[tuple[str, int, str], ...]] = {
    "LatestVersions": (("num_versions", 1, "uint32"),),
    "AllVersions": (),
    "SpecificVersions": (("versions", 1, "*int64"),),
    "ServableVersionPolicy": (
        ("latest", 100, "policy_choice|LatestVersions"),
        ("all", 101, "policy_choice|AllVersions"),
        ("specific", 102, "policy_choice|SpecificVersions"),
    ),
    "ModelConfig": (
        ("name", 1, "string"),
        ("base_path", 2, "string"),
        ("model_type", 3, f"enum {_SERVING_PACKAGE}.ModelConfig.ModelType"),
        ("model_platform", 4, "string"),
        ("model_version_policy", 7, "ServableVersionPolicy"),
        ("version_labels", 8, "{int64"),
    ),
    "ModelConfigList": (("config", 1, "*ModelConfig"),),
    "ModelServerConfig": (
        ("model_config_list", 1, "config|ModelConfigList"),
        ("custom_model_config", 2, f"config|{ANY}"),
    ),
}
_CONFIGURATION_FILE = "kerasline/configuration.proto"
_MODEL_TYPES = {"MODEL_TYPE_UNSPECIFIED": 0, "TENSORFLOW": 1, "OTHER": 2}
STATES = {"UNKNOWN": 0, "START": 10, "LOADING": 20, "AVAILABLE": 30, "UNLOADING": 40, "END": 50}
_HEALTH = {
    "HealthCheckRequest": (("service", 1, "string"),),
    "HealthCheckResponse": (("status", 1, "enum grpc.health.v1.HealthCheckResponse.ServingStatus"),),
}
HEALTH_STATES = {"UNKNOWN": 0, "SERVING": 1, "NOT_SERVING": 2, "SERVICE_UNKNOWN": 3}
_REFLECTION = {
    "ServerReflectionRequest": (
        ("host", 1, "string"),
        ("file_by_filename", 3, "message_request|string"),
        ("file_containing_symbol", 4, "message_request|string"),
        ("file_containing_extension", 5, "message_request|ExtensionRequest"),
        ("all_extension_numbers_of_type", 6, "message_request|string"),
        ("list_services", 7, "message_request|string"),
    ),
    "ExtensionRequest": (("containing_type", 1, "string"), ("extension_number", 2, "int32")),
    "ServerReflectionResponse": (
        ("valid_host", 1, "string"),
        ("original_request", 2, "ServerReflectionRequest"),
        ("file_descriptor_response", 4, "message_response|FileDescriptorResponse"),
        ("all_extension_numbers_response", 5, "message_response|ExtensionNumberResponse"),
        ("list_services_response", 6, "message_response|ListServiceResponse"),
        ("error_response", 7, "message_response|ErrorResponse"),
    ),
    "FileDescriptorResponse": (("file_descriptor_proto", 1, "*bytes"),),
    "ExtensionNumberResponse": (("base_type_name", 1, "string"), ("extension_number", 2, "*int32")),
    "ListServiceResponse": (("service", 1, "*ServiceResponse"),),
    "ServiceResponse": (("name", 1, "string"),),
    "ErrorResponse": (("error_code", 1, "int32"), ("error_message", 2, "string")),
}
# The older package, which many clients use. Its messages have the same form.
_REFLECTION_ALPHA = "grpc.reflection.v1alpha"
_REFLECT = ("ServerReflectionRequest", "ServerReflectionResponse")
# Services by full name: methods with the names of request and response.
SERVICES = {
    f"{_SERVING_PACKAGE}.PredictionService": {
        "Predict": ("PredictRequest", "PredictResponse"),
        "PredictStreamed": ("PredictRequest", "PredictResponse"),
        "Classify": ("ClassificationRequest", "ClassificationResponse"),
        "Regress": ("RegressionRequest", "RegressionResponse"),
        "MultiInference": ("MultiInferenceRequest", "MultiInferenceResponse"),
        "GetModelMetadata": ("GetModelMetadataRequest", "GetModelMetadataResponse"),
    },
    f"{_SERVING_PACKAGE}.ModelService": {
        "GetModelStatus": ("GetModelStatusRequest", "GetModelStatusResponse"),
        "HandleReloadConfigRequest": ("ReloadConfigRequest", "ReloadConfigResponse"),
    },
    f"{_HEALTH_PACKAGE}.Health": {
        "Check": ("HealthCheckRequest", "HealthCheckResponse"),
        "Watch": ("HealthCheckRequest", "HealthCheckResponse"),
    },
    f"{_REFLECTION_PACKAGE}.ServerReflection": {"ServerReflectionInfo": _REFLECT},
    f"{_REFLECTION_ALPHA}.ServerReflection": {"ServerReflectionInfo": _REFLECT},
}
# Methods whose requests, and whose responses, are streams.
_REQUEST_STREAMS = {"ServerReflectionInfo"}
RESPONSE_STREAMS = {"PredictStreamed", "Watch", "ServerReflectionInfo"}


@dataclass(frozen=True)
class Messages:
    """The message classes. They are built at run time, so their fields have no static types.

    Attributes:
        by_name: the classes by name without package.
        pool: the descriptors of all messages and services.
    """

    by_name: dict[str, type[Message]]
    pool: DescriptorPool

    def __getattr__(self, name: str) -> Any:
        """Return a message class, such as `messages().PredictRequest`."""
        try:
            return self.by_name[name]
        except KeyError:
            raise AttributeError(f"no message {name}") from None


@functools.cache
def messages() -> Messages:
    """Return the message classes and their descriptors. This imports TensorFlow."""
    from google.protobuf import any_pb2, descriptor_pool, message_factory, wrappers_pb2

    from kerasline.components.models.session import import_tensorflow

    import_tensorflow()
    from tensorflow.core.example import example_pb2
    from tensorflow.core.protobuf import error_codes_pb2, meta_graph_pb2

    pool = descriptor_pool.DescriptorPool()
    added: set[str] = set()
    for module in (wrappers_pb2, any_pb2, example_pb2, meta_graph_pb2, error_codes_pb2):
        _add_with_imports(pool, module.DESCRIPTOR, added)
    pool.Add(_configuration_file())
    dependencies = [file for file in added if not file.startswith("google/protobuf/desc")]
    states = ("ModelVersionStatus", "State", STATES)
    dependencies.append(_CONFIGURATION_FILE)
    pool.Add(_file("kerasline/serving.proto", _SERVING_PACKAGE, _MESSAGES, states, dependencies))
    health = ("HealthCheckResponse", "ServingStatus", HEALTH_STATES)
    pool.Add(_file("grpc/health/v1/health.proto", _HEALTH_PACKAGE, _HEALTH, health))
    for package in (_REFLECTION_PACKAGE, _REFLECTION_ALPHA):
        pool.Add(_file(f"{package.replace('.', '/')}/reflection.proto", package, _REFLECTION))
    names = {name: f"{_SERVING_PACKAGE}.{name}" for name in _MESSAGES}
    names |= {name: f"{_HEALTH_PACKAGE}.{name}" for name in _HEALTH}
    names |= {name: f"{_REFLECTION_PACKAGE}.{name}" for name in _REFLECTION}
    by_name = {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(full)) for name, full in names.items()}
    return Messages(by_name, pool)


@functools.cache
def model_server_config() -> Any:
    """Return the message class of a configuration of models. This does not import TensorFlow."""
    from google.protobuf import any_pb2, descriptor_pool, message_factory

    pool = descriptor_pool.DescriptorPool()
    _add_with_imports(pool, any_pb2.DESCRIPTOR, set())
    pool.Add(_configuration_file())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_SERVING_PACKAGE}.ModelServerConfig"))


def _configuration_file() -> Any:
    imports = ["google/protobuf/any.proto"]
    types = ("ModelConfig", "ModelType", _MODEL_TYPES)
    return _file(_CONFIGURATION_FILE, _SERVING_PACKAGE, _CONFIGURATION, types, imports)


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
    enum: tuple[str, str, Mapping[str, int]] | None = None,
    imports: Iterable[str] = (),
) -> Any:
    """Return the FileDescriptorProto of messages of a package, and of the services that use them.

    Args:
        enum: the message that contains an enum, the name of the enum, and its numbers by name.
    """
    from google.protobuf import descriptor_pb2

    file = descriptor_pb2.FileDescriptorProto(name=name, package=package, syntax="proto3", dependency=sorted(imports))
    for message_name, fields in messages.items():
        message = file.message_type.add(name=message_name)
        for field_name, number, kind in fields:
            _add_field(message, f".{package}", field_name, number, kind)
        if enum is not None and message_name == enum[0]:
            kinds = message.enum_type.add(name=enum[1])
            for value, number in enum[2].items():
                kinds.value.add(name=value, number=number)
    for full_name, methods in SERVICES.items():
        of_package, _, service_name = full_name.rpartition(".")
        if of_package != package or any(request not in messages for request, _ in methods.values()):
            continue
        service = file.service.add(name=service_name)
        for method, (request, response) in methods.items():
            service.method.add(
                name=method,
                input_type=f".{package}.{request}",
                output_type=f".{package}.{response}",
                client_streaming=method in _REQUEST_STREAMS,
                server_streaming=method in RESPONSE_STREAMS,
            )
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
    elif kind in _SCALARS:
        field.type = _SCALARS[kind]
    else:
        field.type, field.type_name = 11, "." + kind if "." in kind else f"{package}.{kind}"
