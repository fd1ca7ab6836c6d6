"""The REST endpoints under a fuzzer that reads their OpenAPI description."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis does the fuzzing")


@pytest.mark.slow
def test_fuzzed_requests_get_documented_responses(ours):
    """No server error, only documented statuses, and always JSON of the documented schema."""
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import (
        content_type_conformance,
        response_schema_conformance,
        status_code_conformance,
    )

    checks = [
        not_a_server_error,
        status_code_conformance,
        content_type_conformance,
        response_schema_conformance,
    ]
    operations = [found.ok() for found in schemathesis.openapi.from_url(ours.url("/openapi.json")).get_all_operations()]
    assert len(operations) == 22
    for operation in operations:

        @settings(max_examples=60, database=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def fuzz(case):
            case.call_and_validate(checks=checks)

        fuzz()
    assert ours.post("/v1/models/half:predict", {"instances": [1]}) == (200, {"predictions": [3.5]})
