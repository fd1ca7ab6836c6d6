"""Generated answers by REST: `:generate`, and `/v1/completions` as OpenAI's clients use it.

The events of a stream are server-sent events, `data: {...}` and an empty line
(https://html.spec.whatwg.org/multipage/server-sent-events.html). The forms of OpenAI's requests and responses are those
of https://platform.openai.com/docs/api-reference/completions.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
import uuid
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from kerasline.components.core.errors import nearest
from kerasline.components.models.signatures import DEFAULT_SIGNATURE, Signature
from kerasline.components.serving.http import json_codec
from kerasline.components.serving.runtime.errors import RequestError, invalid
from kerasline.components.serving.runtime.generations import Piece, one_row
from kerasline.components.serving.runtime.models import Version
from kerasline.components.serving.runtime.sampling import SETTINGS, Sampling, read_sampling

EVENTS = "text/event-stream"
COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
_GENERATE_KEYS = ("inputs", "instances", "stream", *SETTINGS)
# Parameters of OpenAI that would change the answer, and the values that do not.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "logprobs": (),
    "suffix": ("",),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
}
# OpenAI's types of errors by HTTP status.
_ERROR_TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}


async def generate(version: Version, body: bytes, deadline: float) -> AsyncGenerator[bytes, None]:
    """Yield the response to a `:generate` request: events, or one JSON object if the request has `"stream": false`."""
    generations = version.streamed()
    with version.in_use() as session:
        document = json_codec.parse(body)
        for name in document.keys() - set(_GENERATE_KEYS):
            raise invalid(f"unknown key {name[:100]!r}; {nearest(name, _GENERATE_KEYS)}")
        signature = session.signatures[DEFAULT_SIGNATURE]
        inputs, _ = json_codec.predict_inputs(document, signature)
        arrays = inputs if isinstance(inputs, list) else inputs.arrays()
        columns = one_row(dict(zip(signature.inputs, arrays)))
        is_stream = _flag(document, "stream", default=True)
        pieces = generations.generate(columns, read_sampling(document), deadline)
        async with contextlib.aclosing(pieces):
            async for piece in pieces:
                if is_stream:
                    end = {} if piece.finish_reason is None else _end(piece)
                    yield _event(json_codec.write({"text": piece.prompt + piece.text, **end}))
                elif piece.finish_reason is not None:
                    yield json_codec.write(_end(piece))
        version.log_request(signature, arrays)


def _end(piece: Piece) -> dict[str, Any]:
    return {
        "finish_reason": piece.finish_reason,
        "prompt_tokens": piece.prompt_tokens,
        "generated_tokens": piece.tokens,
        "outputs": json_codec.only_row(piece.outputs or {}),
    }


@dataclass(frozen=True)
class Completion:
    """A request of OpenAI's `/v1/completions`.

    Attributes:
        echo: whether the texts begin with the prompt.
        includes_usage: whether a stream ends with the numbers of tokens.
    """

    model: str
    prompts: Sequence[str]
    sampling: Sampling
    top_p: float | None
    is_stream: bool
    echo: bool
    includes_usage: bool


def read_completion(body: bytes) -> Completion:
    """Return the request. Raise INVALID_ARGUMENT for wrong values, and for what no model here can do."""
    document = json_codec.parse(body)
    for name, neutral in _NEUTRAL.items():
        value = document.get(name)
        if value is not None and value not in neutral:
            expected = f"{neutral[0]!r} or no value" if neutral else "no value"
            raise invalid(f"{name}: expected {expected}, received {str(value)[:100]}")
    model, prompt, top_p = document.get("model"), document.get("prompt"), document.get("top_p")
    if not isinstance(model, str):
        raise invalid(f"model: expected the name of a model, received {json_codec.excerpt(model)}")
    prompts = [prompt] if isinstance(prompt, str) else prompt
    if not isinstance(prompts, list) or not prompts or not all(isinstance(one, str) for one in prompts):
        raise invalid(f"prompt: expected a text or a list of texts, received {json_codec.excerpt(prompt)}")
    if top_p is not None and (not isinstance(top_p, (int, float)) or not 0 < top_p <= 1):
        raise invalid(f"top_p: expected a number above 0, at most 1, received {json_codec.excerpt(top_p)}")
    options = document.get("stream_options")
    return Completion(
        model,
        prompts,
        read_sampling(document),
        top_p,
        is_stream=_flag(document, "stream"),
        echo=_flag(document, "echo"),
        includes_usage=isinstance(options, dict) and _flag(options, "include_usage"),
    )


async def complete(version: Version, request: Completion, deadline: float) -> AsyncGenerator[bytes, None]:
    """Yield the response to a request for completions: events, or one JSON object."""
    generations = version.streamed()
    own = generations.model.top_p
    if request.top_p not in (None, 1, own):
        raise invalid(f"top_p: expected 1 or the model's own, {own or 1:g}, received {request.top_p:g}")
    head = {
        "id": f"cmpl-{uuid.uuid4().hex}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": request.model,
    }
    texts, latest = ["" for _ in request.prompts], {}
    with version.in_use() as session:
        signature = session.signatures[DEFAULT_SIGNATURE]
        rows = _rows(signature, request.prompts)
        streams = [generations.generate(row, request.sampling, deadline) for row in rows]
        async with contextlib.aclosing(_merged(streams)) as pieces:
            async for number, piece in pieces:
                text = piece.prompt * request.echo + piece.text
                texts[number] += text
                latest[number] = piece
                if request.is_stream and (text or piece.finish_reason):
                    yield _event(orjson.dumps({**head, "choices": [_choice(text, number, piece.finish_reason)]}))
        for row in rows:
            version.log_request(signature, list(row.values()))
    prompt_tokens = sum(piece.prompt_tokens for piece in latest.values())
    tokens = sum(piece.tokens for piece in latest.values())
    usage = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": tokens,
        "total_tokens": prompt_tokens + tokens,
    }
    if not request.is_stream:
        choices = [_choice(text, number, latest[number].finish_reason) for number, text in enumerate(texts)]
        yield orjson.dumps({**head, "choices": choices, "usage": usage})
        return
    if request.includes_usage:
        yield _event(orjson.dumps({**head, "choices": [], "usage": usage}))
    yield _event(b"[DONE]")


def error_event(error: RequestError, path: str) -> bytes:
    """Return the event that ends a stream which has begun."""
    return _event(error_body(error, path))


def error_body(error: RequestError, path: str) -> bytes:
    """Return an error in the form of the API of the path."""
    if path not in (COMPLETIONS, CHAT):
        return json.dumps({"error": str(error)}).encode()  # ASCII, also for a lone surrogate of the request
    kind = "server_error" if error.http_status >= 500 else _ERROR_TYPES.get(error.http_status, "invalid_request_error")
    return json.dumps({"error": {"message": str(error), "type": kind, "code": error.code.lower()}}).encode()


def _rows(signature: Signature, prompts: Sequence[str]) -> list[dict[str, np.ndarray]]:
    """Return the inputs of the model for each prompt. Raise FAILED_PRECONDITION unless it takes one text."""
    inputs = signature.inputs
    if len(inputs) != 1 or not all(spec.is_string for spec in inputs.values()):
        names = ", ".join(inputs)
        raise RequestError(
            "FAILED_PRECONDITION", f"{COMPLETIONS} needs a model of one text; this one takes {names}: use :generate"
        )
    ((name, spec),) = inputs.items()
    shape = [1] * len(spec.shape or (1,))
    return [{name: np.full(shape, prompt.encode("utf-8", "replace"), object)} for prompt in prompts]


async def _merged(streams: Sequence[AsyncGenerator[Piece, None]]) -> AsyncGenerator[tuple[int, Piece], None]:
    """Yield the pieces of several answers as they come, with the number of the answer."""
    found: asyncio.Queue[tuple[int, Piece | RequestError]] = asyncio.Queue()

    async def read(number: int, stream: AsyncGenerator[Piece, None]) -> None:
        try:
            async with contextlib.aclosing(stream):
                async for piece in stream:
                    found.put_nowait((number, piece))
        except RequestError as error:
            found.put_nowait((number, error))

    tasks = [asyncio.ensure_future(read(number, stream)) for number, stream in enumerate(streams)]
    unfinished = len(tasks)
    try:
        while unfinished:
            number, piece = await found.get()
            if isinstance(piece, RequestError):
                raise piece
            unfinished -= piece.finish_reason is not None
            yield number, piece
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _choice(text: str, number: int, reason: str | None) -> dict[str, Any]:
    return {"text": text, "index": number, "logprobs": None, "finish_reason": reason}


def _event(data: bytes) -> bytes:
    return b"data: " + data + b"\n\n"


def _flag(document: Mapping[str, Any], name: str, default: bool = False) -> bool:
    value = document.get(name)
    if value is not None and not isinstance(value, bool):
        raise invalid(f"{name}: expected true or false, received {json_codec.excerpt(value)}")
    return default if value is None else value
