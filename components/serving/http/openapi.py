"""The OpenAPI description of the REST endpoints."""

from __future__ import annotations

from typing import Any

_VALUE: dict[str, Any] = {"description": "A value, a nested list of values, or an object of values by input name."}
_ROWS = {"signature_name": {"type": "string"}, "instances": {"type": "array", "minItems": 1, "items": _VALUE}}
_COLUMNS = {"signature_name": {"type": "string"}, "inputs": _VALUE}
_SAMPLING: dict[str, Any] = {
    "max_tokens": {"type": "integer", "minimum": 0},
    "temperature": {"type": "number", "minimum": 0},
    "seed": {"type": "integer"},
    "stop": {"oneOf": [{"type": "string", "minLength": 1}, {"type": "array", "items": {"type": "string"}}]},
    "stream": {"type": "boolean"},
}
_COMPLETION = {
    "model": {"type": "string"},
    "prompt": {"oneOf": [{"type": "string"}, {"type": "array", "minItems": 1, "items": {"type": "string"}}]},
    "echo": {"type": "boolean"},
    **_SAMPLING,
}
_EVENTS = {"text/event-stream": {"schema": {"type": "string"}}}
_EXAMPLE = {"type": "object", "additionalProperties": _VALUE}
_EXAMPLES = {
    "signature_name": {"type": "string"},
    "context": _EXAMPLE,
    "examples": {"type": "array", "minItems": 1, "items": _EXAMPLE},
}
_ERRORS = {
    "400": "The request is malformed, or the model rejects it.",
    "401": "The API key is missing or invalid.",
    "404": "The model or version does not exist.",
    "408": "The request body did not arrive in time.",
    "413": "The request body is too large.",
    "429": "Too many requests are waiting; try again.",
    "500": "The server or the model failed.",
    "501": "JSON cannot represent the model's data type.",
    "503": "Not ready, or shutting down.",
    "504": "The deadline of the request was exceeded.",
}


def describe_api() -> dict[str, Any]:
    """Return the OpenAPI 3.1 document."""
    paths: dict[str, Any] = {}
    selectors: dict[str, tuple[dict[str, Any], ...]] = {
        "": (),
        "/versions/{version}": (_path("version", "integer"),),
        "/labels/{label}": (_path("label"),),
    }
    for selector, more in selectors.items():
        base, parameters = f"/v1/models/{{model}}{selector}", [_path("model"), *more]
        paths[f"{base}:predict"] = _post(
            parameters,
            {"oneOf": [_object(_ROWS, "instances"), _object(_COLUMNS, "inputs")]},
            {
                "oneOf": [
                    _object({"predictions": _VALUE}, "predictions"),
                    _object({"outputs": _VALUE}, "outputs"),
                ]
            },
        )
        for method in ("classify", "regress"):
            response = _object({"results": {"type": "array"}}, "results")
            paths[f"{base}:{method}"] = _post(parameters, _object(_EXAMPLES, "examples"), response)
        rows = {"instances": _ROWS["instances"], **_SAMPLING}
        columns = {"inputs": _VALUE, **_SAMPLING}
        generated = {"oneOf": [_object(rows, "instances"), _object(columns, "inputs")]}
        answer = _object({"outputs": {"type": "object"}, "finish_reason": {"type": "string"}}, "outputs")
        paths[f"{base}:generate"] = _post(parameters, generated, answer, _EVENTS)
        status = _object({"model_version_status": {"type": "array"}}, "model_version_status")
        paths[base] = _get(status, parameters)
        metadata = _object({"model_spec": {"type": "object"}, "metadata": {"type": "object"}}, "metadata")
        paths[f"{base}/metadata"] = _get(metadata, parameters)
    choices = _object({"choices": {"type": "array"}, "usage": {"type": "object"}}, "choices")
    paths["/v1/completions"] = _post([], _object(_COMPLETION, "prompt"), choices, _EVENTS)
    paths["/v1/models"] = _get(_object({"models": {"type": "object"}}, "models"))
    paths["/healthz"] = paths["/readyz"] = _get(_object({"status": {"type": "string"}}, "status"))
    return {
        "openapi": "3.1.0",
        "info": {"title": "kerasline serve", "version": "1", "description": "TensorFlow Serving's REST API."},
        "paths": paths,
    }


def _path(name: str, kind: str = "string") -> dict[str, Any]:
    schema = {"type": kind, **({"minimum": 0} if kind == "integer" else {"minLength": 1})}
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _object(properties: dict[str, Any], required: str) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": [required]}


def _post(
    parameters: list[Any], body: dict[str, Any], response: dict[str, Any], events: dict[str, Any] | None = None
) -> dict[str, Any]:
    content = {"application/json": {"schema": body}}
    timeout = {
        "name": "X-Request-Timeout",
        "in": "header",
        "schema": {"type": "number", "exclusiveMinimum": 0},
    }
    return {
        "post": {
            "parameters": [*parameters, timeout],
            "requestBody": {"required": True, "content": content},
            "responses": _responses(response, events),
        }
    }


def _get(response: dict[str, Any], parameters: list[Any] | None = None) -> dict[str, Any]:
    return {"get": {"parameters": parameters or [], "responses": _responses(response)}}


def _responses(response: dict[str, Any], events: dict[str, Any] | None = None) -> dict[str, Any]:
    error = {"application/json": {"schema": _object({"error": {"type": ["string", "object"]}}, "error")}}
    content = {"application/json": {"schema": response}, **(events or {})}
    errors = {status: {"description": about, "content": error} for status, about in _ERRORS.items()}
    return {
        "200": {"description": "The response.", "content": content},
        **errors,
    }
