"""gRPC's server reflection: clients such as grpcurl learn the services and messages from the server itself.

https://github.com/grpc/grpc/blob/master/doc/server-reflection.md
"""

from __future__ import annotations

from typing import Any

from kerasline.components.serving.runtime.errors import CODE_NUMBERS
from kerasline.components.serving.runtime.messages import SERVICES, messages


def answer_reflection(request: Any) -> Any:
    """Return the ServerReflectionResponse for a ServerReflectionRequest."""
    response = messages().ServerReflectionResponse(valid_host=request.host, original_request=request)
    kind = request.WhichOneof("message_request")
    try:
        if kind == "list_services":
            for name in SERVICES:
                response.list_services_response.service.add(name=name)
        elif kind in ("file_by_filename", "file_containing_symbol"):
            response.file_descriptor_response.file_descriptor_proto.extend(_files(kind, getattr(request, kind)))
        elif kind == "all_extension_numbers_of_type":  # the messages of proto3 have none
            name = request.all_extension_numbers_of_type
            messages().pool.FindMessageTypeByName(name)
            response.all_extension_numbers_response.base_type_name = name
        else:
            raise KeyError
    except KeyError:
        response.error_response.error_code = CODE_NUMBERS["NOT_FOUND" if kind else "INVALID_ARGUMENT"]
        response.error_response.error_message = f"{kind or 'empty request'}: not found"
    return response


def _files(kind: str, name: str) -> list[bytes]:
    """Return a file and those that it imports, each before the file that needs it. Raise KeyError if there is none."""
    pool = messages().pool
    found: dict[str, Any] = {}

    def add(file: Any) -> None:
        if file.name not in found:
            for dependency in file.dependencies:
                add(dependency)
            found[file.name] = file

    add(pool.FindFileByName(name) if kind == "file_by_filename" else pool.FindFileContainingSymbol(name))
    return [file.serialized_pb for file in found.values()]
