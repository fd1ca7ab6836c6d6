"""A message to a webhook when a run failed, or when a model was refused."""

from __future__ import annotations

import json
import logging
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from kerasline.components.core.artifacts import Blessing
from kerasline.components.core.errors import KeraslineError, ParameterError
from kerasline.pipeline.dag import Pipeline
from kerasline.pipeline.metadata.records import Execution
from kerasline.pipeline.observers.observer import RunNotice
from kerasline.pipeline.storage.roots import local

LOG = logging.getLogger("kerasline")

TIMEOUT_SECONDS = 5
PAUSES_SECONDS = (0.5, 1.0)  # between one attempt and the next
# Three attempts take 16.5 s at worst, unless an answer drips in.
MOST_SECONDS = 20
HEADERS = {"Content-Type": "application/json", "User-Agent": "kerasline"}
REFUSED = "model refused"


@dataclass(frozen=True)
class Webhook:
    """Posts JSON to a URL, which is itself a secret. See `kerasline.pipeline.observers.observer.Observer`.

    Raises:
        ParameterError: it is not an HTTP URL.
    """

    url: str = field(repr=False)

    def __post_init__(self) -> None:
        if _host(self.url) is None:
            raise ParameterError(
                "--notify (or KERASLINE_WEBHOOK): not a URL; expected https://HOST/... or http://HOST/..."
            )

    def run_began(self, run: RunNotice) -> None: ...

    def stage_began(self, pipeline: Pipeline, execution: Execution) -> None: ...

    def stage_ended(self, pipeline: Pipeline, execution: Execution) -> None: ...

    def run_ended(self, run: RunNotice) -> None:
        body = message(run)
        if body is not None:
            problem = _within(MOST_SECONDS, lambda: _posted(self.url, body))
            if problem:
                LOG.warning("the webhook at %s could not be notified: %s", _host(self.url), problem)


def message(run: RunNotice) -> dict[str, Any] | None:
    """Return the JSON message about a run, or None if it succeeded or was interrupted.

    Slack and similar services display `text`; the rest is for programs.
    """
    failed = [{"stage": e.node, "message": e.message} for e in run.executions if e.state == "failed"]
    refused = _refusals(run)
    if run.state == "failed":
        what, event = "failed", "run_failed"
    elif run.state == "succeeded" and refused:
        what, event = "refused a model", "model_refused"
    else:
        return None
    stages = f", {run.selected[0]}" if run.is_single_stage else ""
    lines = [f"{run.pipeline.name}{stages}: run {run.run_id} {what}"]
    lines += [f"{one['stage']}: {one['message']}" for one in failed]
    lines += [f"{one['stage']}: {'; '.join(one['rules'])}" for one in refused]
    lines += [run.message] if run.message and not failed else []
    report = _report(run)
    lines += [f"report: {report}"] if report else []
    return {
        "text": _escaped("\n".join(lines)),
        "event": event,
        "run_id": run.run_id,
        "pipeline": run.pipeline.name,
        "recipe": run.recipe,
        "state": run.state,
        "seconds": round(run.seconds, 3),
        "failed": failed,
        "refused": refused,
        "message": run.message,
        "report": report,
    }


def _refusals(run: RunNotice) -> list[dict[str, Any]]:
    """Return each stage that refused a model, with the rules that were broken.

    If no stage of the run evaluated the model, use the stages skipped because of it. A single stage does not report
    them, because the call that evaluated the model already has.
    """
    found = []
    for execution in run.executions:
        for artifact in execution.outputs.values():
            if artifact.type == Blessing.__name__ and (rules := _broken_rules(artifact.path)):
                found.append({"stage": execution.node, "rules": rules})
    if found or run.is_single_stage:
        return found
    skipped = [e for e in run.executions if e.state == "skipped" and (e.message or "").startswith(REFUSED)]
    return [{"stage": e.node, "rules": [e.message]} for e in skipped]


def _broken_rules(blessing: str) -> list[str]:
    try:
        judged = Blessing(local(blessing, Blessing.FILE))
        return [] if judged.blessed else (judged.refusals() or [REFUSED])
    except (KeraslineError, OSError, ValueError, KeyError):  # collected since, or damaged
        return []


def _report(run: RunNotice) -> str | None:
    """Return the place of the report, if at least one stage ran or failed."""
    if all(e.state in ("cached", "skipped") for e in run.executions):
        return None
    return f"{run.root}/reports/{run.run_id}.html"


def _escaped(text: str) -> str:
    """Escape Slack's three entities, so that no error message mentions a whole channel with `<!channel>`."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _within(seconds: float, call: Callable[[], str | None]) -> str | None:
    """Return the result of the call, or an error message after the timeout."""
    answers: list[str | None] = []
    thread = threading.Thread(target=lambda: answers.append(call()), name="webhook", daemon=True)
    thread.start()
    thread.join(seconds)
    return answers[0] if answers else f"no answer in {seconds} s"


def _posted(url: str, body: Mapping[str, Any]) -> str | None:
    """Post with retries. Return the reason for a failure, without the URL, or None."""
    data = json.dumps(body, default=str).encode()
    for pause in (*PAUSES_SECONDS, None):
        try:
            request = urllib.request.Request(url, data, HEADERS)
            with urllib.request.build_opener(_NoRedirect).open(request, timeout=TIMEOUT_SECONDS):
                return None
        except urllib.error.HTTPError as error:
            problem = f"it answered {error.code}"
            error.close()
            if error.code < 500 and error.code != 429:
                return problem
        except OSError as error:  # no connection, or no answer in time
            problem = str(getattr(error, "reason", error))
        except Exception as error:  # an invalid response
            return type(error).__name__
        if pause is not None:
            time.sleep(pause)
    return problem


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirected POST would become a GET, without the message, and look delivered."""

    def redirect_request(self, *_arguments: Any) -> None:
        return None


def _host(url: str) -> str | None:
    """Return the host, which is not secret, or None if this is not an HTTP URL."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises a ValueError if it is not a number
        return parts.hostname if parts.scheme in ("http", "https") else None
    except ValueError:
        return None
