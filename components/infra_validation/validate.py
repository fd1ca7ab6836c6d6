"""The trial of a candidate, in its order: asked in process, served, asked again, compared, timed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from components.artifacts import Blessing, InfraValidation
from components.base import Context
from components.infra_validation.answer import Answer, Rows, count, row
from components.infra_validation.client import BY_COLUMN, BY_ROW, Client, NoAnswer, body, malformed
from components.infra_validation.comparing import compare
from components.infra_validation.edge_cases import edge_cases
from components.infra_validation.in_process import ANSWERS, LOADS, InProcess
from components.infra_validation.latency import measure
from components.infra_validation.rows import draw
from components.infra_validation.server import CandidateServer, check_command, importable
from components.infra_validation.signature import READABLE, Signature, read_signature
from components.infra_validation.verdict import MOST_PROBLEMS, Account, Check, Refused

REAL, EDGE, MALFORMED, AGAIN = "real rows", "edge cases", "malformed requests", "real rows, again"
ALIKE = "the model answers the same rows alike each time"
RULES = {
    REAL: "real rows are answered as in process",
    EDGE: "edge cases are answered as in process",
    MALFORMED: "malformed requests are refused",
    AGAIN: "the server goes on serving",
}
IN_A_ROW = "the server answers requests in a row"
MOST_EDGE_CASES = 300
MOST_VALUES = 500_000  # of a request, which is some 10 MB as JSON


@dataclass(frozen=True)
class Case:
    """Rows to ask about; `every_form`: by each form, or by one in turn."""

    kind: str
    name: str
    rows: Rows
    every_form: bool = True


class Validating:
    """One run of InfraValidator; see there."""

    def __init__(self, inputs: Any, outputs: Any, settings: Any, context: Context) -> None:
        self._inputs, self._outputs, self._settings, self._context = inputs, outputs, settings, context
        self._saved_model = inputs.saved_model.path
        self._account = Account(check_command(settings.command))

    def run(self) -> dict[str, Any]:
        """The figures worth showing."""
        account = self._account
        try:
            self._try_out()
        except Refused as refusal:
            account.checks.append(refusal.check)
        self._outputs.validation.write_json(InfraValidation.FILE, account.as_json())
        self._outputs.blessing.write_json(Blessing.FILE, account.blessing())
        self._tell()
        refusals = self._outputs.blessing.refusals()
        return {
            "requests": sum(tally.sent for tally in account.tallies.values()),
            **({"latency_ms": account.latency["p50_ms"], "latency_p99_ms": account.latency["p99_ms"]}
               if account.latency else {}),
            "blessed": "yes" if account.blessed else f"no: {'; '.join(refusals)}",
        }  # fmt: skip

    def _try_out(self) -> None:
        signature = read_signature(self._saved_model)
        self._keep(
            READABLE, f"it takes {len(signature.inputs)} features and gives {', '.join(signature.outputs)}"
        )
        settings, work_dir, environment = self._settings, self._context.work_dir, self._environment()
        log = self._outputs.validation.path / InfraValidation.LOG
        self._context.report("starting the server, and the model in a process of its own")
        with CandidateServer(self._saved_model, work_dir, log, settings, environment) as server:
            try:
                cases = self._cases(signature)
                with InProcess(self._saved_model, [c.rows for c in cases], work_dir, environment) as process:
                    own = self._answers_in_process(process, cases)
                server.wait_until_ready(settings.ready_seconds)
                self._keep(server.ready_rule, "it is")
                with Client(server.address, signature, settings.request_seconds) as client:
                    self._ask_all(client, server, cases, own)
                    self._time(client, server, cases, own)
            finally:
                self._account.ending = server.ending()
                self._account.log = server.log_tail()

    def _cases(self, signature: Signature) -> list[Case]:
        settings, rng = self._settings, np.random.default_rng(self._settings.seed)
        real = draw(
            self._inputs.examples, settings.split, signature.inputs, rows=settings.rows, seed=settings.seed
        )
        schema = self._inputs.schema.proto() if self._inputs.schema is not None else None
        edges = edge_cases(signature.inputs, row(real, 0), schema)
        names = list(edges)
        if len(names) > MOST_EDGE_CASES:
            names = [names[n] for n in np.sort(rng.choice(len(names), MOST_EDGE_CASES, replace=False))]
            self._account.left_out.append(
                f"{len(edges) - len(names)} of {len(edges)} edge cases, drawn by the seed"
            )
        together = {name: array[: _rows_together(real)] for name, array in real.items()}
        batch = f"{count(together)} real rows together"
        return [
            Case(REAL, batch, together),
            *(Case(REAL, f"real row {n}", row(real, n), every_form=False) for n in range(count(real))),
            *(Case(EDGE, name, edges[name]) for name in names),
            Case(AGAIN, f"{batch}, again", together),
        ]

    def _answers_in_process(self, process: InProcess, cases: Sequence[Case]) -> list[Answer]:
        settings = self._settings
        process.wait_until_loaded(settings.ready_seconds)
        self._keep(LOADS, "it does")
        own = [process.answer(case.name, settings.request_seconds) for case in cases]
        self._keep(ANSWERS, f"it answers or refuses each of {len(own)} requests")
        if (first := compare(own[0], own[-1], settings.tolerance).wrong) is not None:
            raise Refused(ALIKE, "asked twice in process it answers otherwise, so it keeps a state or draws at random: "
                                 + first.replace("served", "then").replace("in process", "first"))  # fmt: skip
        self._keep(ALIKE, "it does in process")
        singles = [answer for case, answer in zip(cases, own) if case.kind == REAL][1:]
        if all(answer.is_refusal for answer in singles):
            raise Refused(ANSWERS, f"it refuses every real row: {singles[0].error}")
        return own

    def _ask_all(
        self, client: Client, server: CandidateServer, cases: Sequence[Case], own: Sequence[Answer]
    ) -> None:
        self._context.report(f"asking the server about {len(cases)} cases")
        for kind in RULES:
            broken = 0
            for form, name, ask, wanted in self._requests(kind, client, cases, own):
                tally = self._account.tally(kind, form)
                tally.sent += 1
                served = self._served(server, RULES[kind], f"{name} by {form}", ask)
                wrong = self._wrong(wanted, served)
                broken += wrong is not None
                tally.wrong += wrong is not None
                tally.refused += wrong is None and served.is_refusal
                tally.answered += wrong is None and not served.is_refusal
                if wrong is not None and broken <= MOST_PROBLEMS:
                    self._account.problems.append({"kind": kind, "form": form, "case": name, "why": wrong})
            self._close(kind, broken)

    def _requests(
        self, kind: str, client: Client, cases: Sequence[Case], own: Sequence[Answer]
    ) -> Iterator[tuple[str, str, Any, Answer]]:
        """Form, name, what asks, and the right answer."""
        if kind == MALFORMED:
            for name, document in malformed(cases[0].rows).items():
                yield (
                    BY_COLUMN,
                    name,
                    lambda document=document: client.post(document),
                    Answer(None, 400, "malformed"),
                )
            return
        for number, (case, wanted) in enumerate(zip(cases, own)):
            if case.kind == kind:
                forms = client.forms if case.every_form else [client.forms[number % len(client.forms)]]
                for form in forms:
                    yield form, case.name, lambda form=form, rows=case.rows: client.ask(form, rows), wanted

    def _served(self, server: CandidateServer, rule: str, what: str, ask: Any) -> Answer:
        try:
            return ask()
        except NoAnswer as error:
            ending = server.ending(wait_seconds=2.0)
            told = f"{ending}, when it was asked about {what}" if ending else f"{error} to {what}"
            late = "no answer within" in str(error) if ending is None else "SIGKILL" in ending
            raise Refused(rule, told, maybe_the_machine=late) from error

    def _wrong(self, own: Answer, served: Answer) -> str | None:
        compared = compare(own, served, self._settings.tolerance)
        self._account.largest_difference = max(self._account.largest_difference or 0.0, compared.largest)
        return compared.wrong

    def _close(self, kind: str, broken: int) -> None:
        """The check of one kind of requests."""
        tallies = [t for t in self._account.tallies.values() if t.kind == kind]
        sent, refused = sum(t.sent for t in tallies), sum(t.refused for t in tallies)
        if not broken:
            told = f"{sent} requests" + (
                f", of which {refused} are refused, as in process" if kind != MALFORMED and refused else ""
            )
            self._keep(RULES[kind], told)
            return
        first = next(p for p in self._account.problems if p["kind"] == kind)
        told = f"{broken} of {sent} requests about {kind} are answered wrongly, the first, {first['case']} by {first['form']}: "
        self._account.checks.append(Check(RULES[kind], False, told + first["why"]))

    def _time(
        self, client: Client, server: CandidateServer, cases: Sequence[Case], own: Sequence[Answer]
    ) -> None:
        settings, form = self._settings, BY_ROW if BY_ROW in client.forms else BY_COLUMN
        alone = [
            case.rows
            for case, answer in zip(cases, own)
            if case.kind == REAL and not answer.is_refusal and not case.every_form
        ]
        self._context.report("measuring latency")
        bodies = [body(form, rows) for rows in alone]
        latency = self._served(server, IN_A_ROW, "one of many requests in a row", lambda: measure(
            server.address, bodies, self._context.work_dir, requests=settings.requests, seconds=settings.request_seconds,
        ))  # fmt: skip
        bound = settings.latency_p99_ms
        self._account.latency = {**latency, "bound_ms": bound}
        if bound is not None:
            rule, p99 = f"p99 latency of one row at most {bound:g} ms", latency["p99_ms"]
            why = f"p99 latency of one row is {p99:.3g} ms, at most {bound:g} ms wanted"
            self._account.checks.append(Check(rule, p99 <= bound, why, p99 > bound, bound, p99))

    def _environment(self) -> dict[str, str]:
        """Of both processes, so that they compute alike; a GPU is shared with the pipeline's own process."""
        from components.serving.versions import are_small

        shared = {**importable(), "TF_FORCE_GPU_ALLOW_GROWTH": "true"}
        shared["TF_CPP_MIN_LOG_LEVEL"] = os.environ.get("TF_CPP_MIN_LOG_LEVEL", "2")
        if (
            self._settings.command is None
            and "TF_ENABLE_ONEDNN_OPTS" not in os.environ
            and are_small([self._saved_model])
        ):
            shared["TF_ENABLE_ONEDNN_OPTS"] = "0"  # as our server does by itself
        return shared

    def _keep(self, rule: str, why: str) -> None:
        self._account.checks.append(Check(rule, True, why))

    def _tell(self) -> None:
        """Says in the run's log how a candidate was refused."""
        account, report = self._account, self._context.report
        for problem in account.problems:
            report(f"{problem['kind']}, {problem['form']}, {problem['case']}: {problem['why']}")
        if account.ending is not None:
            for line in account.log:
                report(f"the server said: {line}")
        for check in account.checks:
            if not check.kept:
                report(f"refused: {check.why}")


def _rows_together(rows: Rows) -> int:
    """How many rows a request may have: `MOST_VALUES` values, ten bytes of text counting as one."""
    values = sum(
        sum(map(len, array.ravel().tolist())) / 10 if array.dtype == object else array.size
        for array in rows.values()
    )
    return max(1, min(count(rows), int(MOST_VALUES * count(rows) / max(values, 1))))
