"""The trial of a candidate, in its order: asked in process, served, asked again, compared, timed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from kerasline.components.core.artifacts import Blessing, InfraValidation
from kerasline.components.core.component import Context
from kerasline.components.infra_validator.answer import Answer, row
from kerasline.components.infra_validator.cases import AGAIN, ALONE, EDGE, REAL, Case, all_cases, few_enough
from kerasline.components.infra_validator.client import BY_COLUMN, BY_ROW, Client, NoAnswer, body, malformed
from kerasline.components.infra_validator.comparing import compare, differs_from_before
from kerasline.components.infra_validator.edge_cases import edge_cases
from kerasline.components.infra_validator.in_process import ANSWERS, LOADS, InProcess
from kerasline.components.infra_validator.latency import measure
from kerasline.components.infra_validator.rows import draw
from kerasline.components.infra_validator.server import CandidateServer, check_command, importable
from kerasline.components.infra_validator.signature import READABLE, Signature, read_signature
from kerasline.components.infra_validator.verdict import MOST_PROBLEMS, Account, Check, Refused

MALFORMED = "malformed requests"
ALIKE = "the model answers the same rows alike each time"
IN_A_ROW = "the server answers requests in a row"
RULES = {
    REAL: "real rows are answered as in process",
    ALONE: "real rows are answered alone as in process",
    EDGE: "edge cases are answered as in process",
    MALFORMED: "malformed requests are refused",
    AGAIN: "the server goes on serving",
}
ENDING_SECONDS = 2.0  # from a lost connection to the end of the process
Request = tuple[str, str, Callable[[], Answer], Answer]  # form, name, what asks, the right answer


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
        figures: dict[str, Any] = {"requests": sum(tally.sent for tally in account.tallies.values())}
        if account.latency:
            figures |= {"latency_ms": account.latency["p50_ms"], "latency_p99_ms": account.latency["p99_ms"]}
        refusals = "; ".join(self._outputs.blessing.refusals())
        return {**figures, "blessed": "yes" if account.blessed else f"no: {refusals}"}

    def _try_out(self) -> None:
        signature = read_signature(self._saved_model)
        self._keep(READABLE, f"inputs: {len(signature.inputs)}; outputs: {', '.join(signature.outputs)}")
        settings, work_dir, environment = self._settings, self._context.work_dir, self._environment()
        log = self._outputs.validation.path / InfraValidation.LOG
        self._context.report("starting the server, and the model in a process of its own")
        with CandidateServer(self._saved_model, work_dir, log, settings, environment) as server:
            try:
                cases = self._cases(signature)
                with InProcess(self._saved_model, [case.rows for case in cases], work_dir, environment) as process:
                    own = self._answers_in_process(process, cases)
                server.wait_until_ready(settings.ready_seconds)
                self._keep(server.ready_rule, "it is")
                with Client(server.address, signature, settings.request_seconds) as client:
                    self._ask_all(client, server, cases, own)
                    self._time(client, server, cases, own)
            finally:
                ending = server.ending()
                self._account.ending = ending and f"{ending}{server.last_words()}"
                self._account.log = server.log_tail()

    def _cases(self, signature: Signature) -> list[Case]:
        settings, inputs = self._settings, self._inputs
        real = draw(inputs.examples, settings.split, signature.inputs, rows=settings.rows, seed=settings.seed)
        edges = edge_cases(signature.inputs, row(real, 0), inputs.schema.proto() if inputs.schema else None)
        kept = few_enough(edges, settings.seed)
        if len(kept) < len(edges):
            self._account.left_out.append(f"{len(edges) - len(kept)} of {len(edges)} edge cases")
        return all_cases(real, kept)

    def _answers_in_process(self, process: InProcess, cases: Sequence[Case]) -> list[Answer]:
        process.wait_until_loaded(self._settings.ready_seconds)
        self._keep(LOADS, "it does")
        own = [process.answer(case.name, self._settings.request_seconds) for case in cases]
        alone = [answer for case, answer in zip(cases, own) if case.kind == ALONE]
        if all(answer.is_refusal for answer in alone):
            raise Refused(ANSWERS, f"it refuses every real row: {alone[0].error}")
        self._keep(ANSWERS, f"it answers or refuses each of {len(own)} requests")
        if changed := differs_from_before(own[0], own[-1], self._settings.tolerance):
            raise Refused(
                ALIKE,
                f"asked twice about the same rows it answers otherwise, as what keeps a state or "
                f"draws at random does: {changed}",
            )
        self._keep(ALIKE, "it does")
        return own

    def _ask_all(self, client: Client, server: CandidateServer, cases: Sequence[Case], own: Sequence[Answer]) -> None:
        self._context.report(f"asking the server about {len(cases)} cases")
        for kind in RULES:
            for form, name, ask, wanted in _requests(kind, client, cases, own):
                served = self._served(server, RULES[kind], f"{name} by {form}", ask)
                self._count(kind, form, name, wanted, served)
            self._close(kind)

    def _served(self, server: CandidateServer, rule: str, what: str, ask: Callable[[], Any]) -> Any:
        """What comes back. Raises Refused where nothing does."""
        try:
            return ask()
        except NoAnswer as error:
            if ending := server.ending(ENDING_SECONDS):
                why = f"{ending} when it was asked about {what}{server.last_words()}"
                raise Refused(rule, why, maybe_the_machine="SIGKILL" in ending) from error
            raise Refused(rule, f"{error} to {what}", maybe_the_machine=error.is_late) from error

    def _count(self, kind: str, form: str, name: str, wanted: Answer, served: Answer) -> None:
        account, tally = self._account, self._account.tally(kind, form)
        compared = compare(wanted, served, self._settings.tolerance)
        account.largest_difference = max(account.largest_difference or 0.0, compared.largest)
        tally.sent += 1
        tally.wrong += compared.wrong is not None
        tally.refused += compared.wrong is None and served.is_refusal
        tally.answered += compared.wrong is None and not served.is_refusal
        if compared.wrong is not None:
            account.problems.append({"kind": kind, "form": form, "case": name, "why": compared.wrong})

    def _close(self, kind: str) -> None:
        """The check of one kind of requests."""
        tallies = [tally for tally in self._account.tallies.values() if tally.kind == kind]
        sent, refused = sum(tally.sent for tally in tallies), sum(tally.refused for tally in tallies)
        wrong = [problem for problem in self._account.problems if problem["kind"] == kind]
        if not wrong:
            alike = refused and kind != MALFORMED
            self._keep(
                RULES[kind],
                f"{sent} requests" + (f", {refused} of them refused, as in process" if alike else ""),
            )
            return
        first = f"{wrong[0]['case']} by {wrong[0]['form']}: {wrong[0]['why']}"
        told = f"{len(wrong)} of {sent} requests ({kind}) are answered wrongly, the first of them {first}"
        self._account.checks.append(Check(RULES[kind], False, told))

    def _time(self, client: Client, server: CandidateServer, cases: Sequence[Case], own: Sequence[Answer]) -> None:
        settings, form = self._settings, BY_ROW if BY_ROW in client.forms else BY_COLUMN
        self._context.report("measuring latency")
        answered = [case for case, answer in zip(cases, own) if case.kind == ALONE and not answer.is_refusal]
        bodies = [body(form, case.rows) for case in answered]

        def ask() -> dict[str, Any]:
            limits = {"requests": settings.requests, "seconds": settings.request_seconds}
            return measure(server.address, bodies, self._context.work_dir, **limits)

        latency = self._served(server, IN_A_ROW, "one of many requests in a row", ask)
        bound, p99 = settings.latency_p99_ms, latency["p99_ms"]
        self._account.latency = {**latency, "bound_ms": bound}
        if bound is not None:
            rule = f"p99 latency of one row at most {bound:g} ms"
            why = f"p99 latency of one row is {p99:.3g} ms, at most {bound:g} ms wanted"
            self._account.checks.append(Check(rule, p99 <= bound, why, p99 > bound, bound, p99))

    def _environment(self) -> dict[str, str]:
        """Of both processes, so that they compute alike. A GPU is shared with the pipeline's own process."""
        from kerasline.components.serving.runtime.versions import are_small

        found = {**importable(), "TF_FORCE_GPU_ALLOW_GROWTH": "true"}
        found["TF_CPP_MIN_LOG_LEVEL"] = os.environ.get("TF_CPP_MIN_LOG_LEVEL", "2")
        is_ours, is_set = self._settings.command is None, "TF_ENABLE_ONEDNN_OPTS" in os.environ
        if is_ours and not is_set and are_small([self._saved_model]):
            found["TF_ENABLE_ONEDNN_OPTS"] = "0"  # as our server does by itself
        return found

    def _keep(self, rule: str, why: str) -> None:
        self._account.checks.append(Check(rule, True, why))

    def _tell(self) -> None:
        """Says in the run's log how a candidate was refused."""
        account, report = self._account, self._context.report
        for problem in account.problems[:MOST_PROBLEMS]:
            report(f"{problem['kind']}, {problem['form']}, {problem['case']}: {problem['why']}")
        for line in account.log if account.ending else ():
            report(f"the server said: {line}")
        for check in account.checks:
            if not check.kept:
                report(f"refused: {check.why}")


def _requests(kind: str, client: Client, cases: Sequence[Case], own: Sequence[Answer]) -> Iterator[Request]:
    """All requests of a kind. Single real rows, of which there are many alike, go by one form in turn."""
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
            for form in client.forms if kind != ALONE else [client.forms[number % len(client.forms)]]:
                yield form, case.name, lambda form=form, rows=case.rows: client.ask(form, rows), wanted
