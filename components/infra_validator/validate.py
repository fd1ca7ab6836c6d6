"""One validation, step by step: the model's own answers, the server's answers, their comparison, and the latency."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from kerasline.components.core.artifacts import Blessing, InfraValidation
from kerasline.components.core.component import Context
from kerasline.components.core.errors import ArtifactError
from kerasline.components.infra_validator.cases import (
    AGAIN,
    ALONE,
    EDGE,
    REAL,
    Answer,
    Case,
    draw_rows,
    make_cases,
    row,
    sample,
)
from kerasline.components.infra_validator.client import (
    BY_COLUMN,
    BY_ROW,
    Client,
    NoAnswer,
    malformed_bodies,
    request_body,
)
from kerasline.components.infra_validator.command import server_name
from kerasline.components.infra_validator.comparison import compare, compare_repeated
from kerasline.components.infra_validator.edge_cases import edge_cases
from kerasline.components.infra_validator.in_process import ANSWERS, LOADS, InProcess
from kerasline.components.infra_validator.latency import measure_latency
from kerasline.components.infra_validator.server import CandidateServer
from kerasline.components.infra_validator.settings import InfraValidatorSettings
from kerasline.components.infra_validator.verdict import MAX_PROBLEMS, Check, Findings, Refused
from kerasline.components.models.signatures import DEFAULT_SIGNATURE, Signature, read_definitions, signatures
from kerasline.components.processes.child import import_environment

T = TypeVar("T")
MALFORMED = "malformed requests"
READABLE = "the SavedModel can be read"
REPEATABLE = "the model answers the same rows alike each time"
CONSECUTIVE = "the server answers consecutive requests"
RULES = {
    REAL: "real rows are answered as in process",
    ALONE: "single real rows are answered as in process",
    EDGE: "edge cases are answered as in process",
    MALFORMED: "malformed requests are refused",
    AGAIN: "the server continues to serve",
}
ENDING_SECONDS = 2.0  # between a lost connection and the end of the process
Request = tuple[str, str, Callable[[], Answer], Answer]  # format, name, what sends it, the correct answer


class Validation:
    """One run of InfraValidator.

    Args:
        inputs, outputs: of InfraValidator.
        settings: its parameters.
        context: its context.
    """

    def __init__(self, inputs: Any, outputs: Any, settings: InfraValidatorSettings, context: Context) -> None:
        self._inputs, self._outputs, self._settings, self._context = inputs, outputs, settings, context
        self._saved_model: Path = inputs.saved_model.path
        self._findings = Findings(server_name(settings.command))

    def run(self) -> dict[str, Any]:
        """Validate the model, write the outputs, and return the metrics to display."""
        findings = self._findings
        try:
            self._validate()
        except Refused as refusal:
            findings.checks.append(refusal.check)
        self._outputs.validation.write_json(InfraValidation.FILE, findings.as_json())
        self._outputs.blessing.write_json(Blessing.FILE, findings.blessing())
        self._report_refusal()
        metrics: dict[str, Any] = {"requests": sum(tally.sent for tally in findings.tallies.values())}
        if findings.latency:
            metrics |= {"latency_ms": findings.latency["p50_ms"], "latency_p99_ms": findings.latency["p99_ms"]}
        if findings.notes:
            metrics["notes"] = "; ".join(findings.notes)
        refusals = "; ".join(self._outputs.blessing.refusals())
        return {**metrics, "blessed": "yes" if findings.blessed else f"no: {refusals}"}

    def _validate(self) -> None:
        signature = read_signature(self._saved_model)
        findings, settings, work_dir = self._findings, self._settings, self._context.work_dir
        findings.keep(READABLE, f"inputs: {len(signature.inputs)}; outputs: {', '.join(signature.outputs)}")
        environment = self._environment()
        log = self._outputs.validation.path / InfraValidation.LOG
        self._context.report("starting the server, and the model in a process of its own")
        with CandidateServer(self._saved_model, work_dir, log, settings, environment) as server:
            try:
                cases = self._cases(signature)
                with InProcess(self._saved_model, [case.rows for case in cases], work_dir, environment) as process:
                    own = self._own_answers(process, cases)
                server.wait_until_ready()
                findings.keep(server.ready_rule, "it is")
                with Client(server.address, signature, settings.request_seconds) as client:
                    self._send_all(client, server, cases, own)
                    self._measure_latency(client, server, cases, own)
            finally:
                ending = server.ending()
                findings.ending = ending and f"{ending}{server.last_words()}"
                findings.log = server.log_tail()

    def _cases(self, signature: Signature) -> list[Case]:
        settings, inputs = self._settings, self._inputs
        real = draw_rows(inputs.examples, settings.split, signature.input_specs, rows=settings.rows, seed=settings.seed)
        edges = edge_cases(signature.inputs, row(real, 0), inputs.schema.proto() if inputs.schema else None)
        kept = sample(edges, settings.seed)
        if len(kept) < len(edges):
            self._findings.left_out.append(f"{len(edges) - len(kept)} of {len(edges)} edge cases")
        return make_cases(real, kept)

    def _own_answers(self, process: InProcess, cases: Sequence[Case]) -> list[Answer]:
        process.wait_until_loaded(self._settings.ready_seconds)
        self._findings.keep(LOADS, "it does")
        own = [process.answer(case.name, self._settings.request_seconds) for case in cases]
        alone = [answer for case, answer in zip(cases, own) if case.kind == ALONE]
        if all(answer.is_refusal for answer in alone):
            raise Refused(ANSWERS, f"it refuses every real row: {alone[0].error}")
        self._findings.keep(ANSWERS, f"it answers or refuses each of {len(own)} requests")
        if mismatch := compare_repeated(own[0], own[-1], self._settings.tolerance):
            why = "its two answers to the same rows differ, as if it kept a state or drew random numbers"
            raise Refused(REPEATABLE, f"{why}: {mismatch}")
        self._findings.keep(REPEATABLE, "it does")
        if dependence := process.row_dependence(self._settings.request_seconds):
            self._findings.notes.append(f"answers may depend on the other rows of a batch: {dependence}")
            self._context.report(f"note: {self._findings.notes[-1]}; do not batch requests of several clients")
        return own

    def _send_all(self, client: Client, server: CandidateServer, cases: Sequence[Case], own: Sequence[Answer]) -> None:
        self._context.report(f"sending {len(cases)} cases to the server")
        for kind in RULES:
            for format, name, send, expected in _requests(kind, client, cases, own):
                served = self._answered(server, RULES[kind], f"{name} by {format}", send)
                self._count(kind, format, name, expected, served)
            self._conclude(kind)

    def _answered(self, server: CandidateServer, rule: str, request: str, send: Callable[[], T]) -> T:
        """Return what `send` returns. Raise Refused if there is no answer."""
        try:
            return send()
        except NoAnswer as error:
            if ending := server.ending(ENDING_SECONDS):
                why = f"{ending} while it answered {request}{server.last_words()}"
                raise Refused(rule, why, may_be_transient="SIGKILL" in ending) from error
            raise Refused(rule, f"{error} to {request}", may_be_transient=error.is_timeout) from error

    def _count(self, kind: str, format: str, name: str, expected: Answer, served: Answer) -> None:
        findings, tally = self._findings, self._findings.tally(kind, format)
        compared = compare(expected, served, self._settings.tolerance)
        findings.largest_difference = max(findings.largest_difference or 0.0, compared.largest)
        tally.sent += 1
        tally.wrong += compared.mismatch is not None
        tally.refused += compared.mismatch is None and served.is_refusal
        tally.answered += compared.mismatch is None and not served.is_refusal
        if compared.mismatch is not None:
            findings.problems.append({"kind": kind, "form": format, "case": name, "why": compared.mismatch})

    def _conclude(self, kind: str) -> None:
        """Record the check of one kind of requests."""
        tallies = [tally for tally in self._findings.tallies.values() if tally.kind == kind]
        sent, refused = sum(tally.sent for tally in tallies), sum(tally.refused for tally in tallies)
        wrong = [problem for problem in self._findings.problems if problem["kind"] == kind]
        if not wrong:
            refusals = f", {refused} of them refused, as in process" if refused and kind != MALFORMED else ""
            self._findings.keep(RULES[kind], f"{sent} requests{refusals}")
            return
        first = f"{wrong[0]['case']} by {wrong[0]['form']}: {wrong[0]['why']}"
        why = f"{len(wrong)} of {sent} requests ({kind}) are answered incorrectly, first {first}"
        self._findings.checks.append(Check(RULES[kind], False, why))

    def _measure_latency(
        self, client: Client, server: CandidateServer, cases: Sequence[Case], own: Sequence[Answer]
    ) -> None:
        settings, format = self._settings, BY_ROW if BY_ROW in client.formats else BY_COLUMN
        self._context.report("measuring latency")
        answered = [case for case, answer in zip(cases, own) if case.kind == ALONE and not answer.is_refusal]
        bodies = [request_body(format, case.rows) for case in answered]
        folder = self._context.work_dir

        def measure() -> dict[str, Any]:
            return measure_latency(
                server.address, bodies, folder, requests=settings.requests, seconds=settings.request_seconds
            )

        latency = self._answered(server, CONSECUTIVE, "one of many consecutive requests", measure)
        bound, p99 = settings.latency_p99_ms, latency["p99_ms"]
        self._findings.latency = {**latency, "bound_ms": bound}
        if bound is not None:
            rule = f"p99 latency of one row at most {bound:g} ms"
            why = f"p99 latency of one row is {p99:.3g} ms, expected at most {bound:g} ms"
            self._findings.checks.append(Check(rule, p99 <= bound, why, p99 > bound, bound, p99))

    def _environment(self) -> dict[str, str]:
        """Return variables for both processes, so that they compute alike and share a GPU with this process."""
        from kerasline.components.serving.runtime.model_folders import are_fast_models

        environment = {**import_environment(), "TF_FORCE_GPU_ALLOW_GROWTH": "true"}
        environment["TF_CPP_MIN_LOG_LEVEL"] = os.environ.get("TF_CPP_MIN_LOG_LEVEL", "2")
        is_ours, is_set = self._settings.command is None, "TF_ENABLE_ONEDNN_OPTS" in os.environ
        if is_ours and not is_set and are_fast_models([self._saved_model]):
            environment["TF_ENABLE_ONEDNN_OPTS"] = "0"  # our server does the same by itself
        return environment

    def _report_refusal(self) -> None:
        """Write the reasons of a refusal to the run's log."""
        findings, report = self._findings, self._context.report
        for problem in findings.problems[:MAX_PROBLEMS]:
            report(f"{problem['kind']}, {problem['form']}, {problem['case']}: {problem['why']}")
        for line in findings.log if findings.ending else ():
            report(f"the server printed: {line}")
        for check in findings.checks:
            if not check.kept:
                report(f"refused: {check.why}")


def read_signature(folder: Path) -> Signature:
    """Read the signature `serving_default` of a SavedModel from its file: loading it might crash the process.

    Raises:
        Refused: the file is damaged, or has no such signature, or an input does not take any number of rows.
    """
    try:
        definitions = read_definitions(folder)
    except ArtifactError as error:
        raise Refused(READABLE, str(error)) from error
    if DEFAULT_SIGNATURE not in definitions:
        known = ", ".join(sorted(definitions)) or "none"
        raise Refused(READABLE, f"it has no signature {DEFAULT_SIGNATURE}, which servers use; its signatures: {known}")
    signature = signatures({DEFAULT_SIGNATURE: definitions[DEFAULT_SIGNATURE]})[DEFAULT_SIGNATURE]
    for name, spec in signature.inputs.items():
        if not spec.is_batched:
            raise Refused(READABLE, f"its input {name!r} has shape {spec.shape}; its first dimension must be None")
    return signature


def _requests(kind: str, client: Client, cases: Sequence[Case], own: Sequence[Answer]) -> Iterator[Request]:
    """Yield all requests of a kind. Single real rows are numerous and alike, so each is sent in one format in turn."""
    if kind == MALFORMED:
        for name, body in malformed_bodies(cases[0].rows).items():
            yield BY_COLUMN, name, functools.partial(client.post, body), Answer(None, 400, "malformed")
        return
    for number, (case, expected) in enumerate(zip(cases, own)):
        if case.kind == kind:
            formats = client.formats if kind != ALONE else [client.formats[number % len(client.formats)]]
            for format in formats:
                yield format, case.name, functools.partial(client.predict, format, case.rows), expected
