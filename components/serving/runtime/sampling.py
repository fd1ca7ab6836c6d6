"""How a request for a generated answer differs from what the answering function does by itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from kerasline.components.serving.runtime.errors import invalid

MAX_STOPS, MAX_STOP_CHARACTERS = 16, 1000
SEED_BITS = 63


@dataclass(frozen=True)
class Sampling:
    """The settings of a request. None leaves the setting of the answering function.

    Attributes:
        max_tokens: maximum number of generated tokens.
        temperature: 0 takes the most probable tokens.
        seed: seed of the random numbers.
        stop: texts before which the answer ends.
    """

    max_tokens: int | None = None
    temperature: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()


# The names of the settings in a request.
SETTINGS = tuple(field.name for field in fields(Sampling))


def read_sampling(given: Mapping[str, Any]) -> Sampling:
    """Return the settings in a request, in which None stands for a missing one.

    Raises:
        RequestError: INVALID_ARGUMENT for a value of the wrong type or out of range.
    """
    max_tokens, temperature, seed = (given.get(name) for name in ("max_tokens", "temperature", "seed"))
    stop = given.get("stop")
    _check(max_tokens is None or (_is_whole(max_tokens) and max_tokens >= 0), "max_tokens", max_tokens, "0 or more")
    is_number = isinstance(temperature, (int, float)) and not isinstance(temperature, bool)
    is_valid = temperature is None or (is_number and temperature >= 0 and math.isfinite(temperature))
    _check(is_valid, "temperature", temperature, "a number from 0")
    _check(seed is None or (_is_whole(seed) and abs(seed) < 1 << SEED_BITS), "seed", seed, "an integer of 64 bits")
    stops = [] if stop is None else [stop] if isinstance(stop, str) else stop
    are_texts = isinstance(stops, list) and all(isinstance(one, str) and one for one in stops)
    are_few = are_texts and len(stops) <= MAX_STOPS and all(len(one) <= MAX_STOP_CHARACTERS for one in stops)
    _check(are_few, "stop", stop, f"a text, or a list of at most {MAX_STOPS}, of at most {MAX_STOP_CHARACTERS} letters")
    return Sampling(max_tokens, None if temperature is None else float(temperature), seed, tuple(stops))


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check(holds: bool, name: str, received: Any, expected: str) -> None:
    if not holds:
        raise invalid(f"{name}: expected {expected}, received {str(received)[:100]}")
