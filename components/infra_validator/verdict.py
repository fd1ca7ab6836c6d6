"""The checks of a validation, the verdict for Pusher, and the details for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

MAX_PROBLEMS = 20  # listed individually up to this many; the rest are only counted


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        rule: what is required.
        kept: whether it holds.
        why: what was found, as a sentence.
        may_be_transient: whether a busy or small machine may be the cause, so that a retry is worthwhile.
        bound, value: of a metric that has a bound.
    """

    rule: str
    kept: bool
    why: str
    may_be_transient: bool = False
    bound: float | None = None
    value: float | None = None

    def as_rule(self) -> dict[str, Any]:
        """Return the check in the form of `kerasline.components.core.artifacts.Blessing`."""
        return {
            "rule": self.rule,
            "output": "",
            "metric": "",
            "slicing": "",
            "slice": "",
            "kind": "" if self.bound is None else "max",
            "bound": self.bound,
            "confidence": None,
            "value": self.value,
            "low": None,
            "high": None,
            "measured": True,
            "kept": self.kept,
            "why": self.why,
        }


class Refused(Exception):
    """The candidate failed a check, and no further one is possible."""

    def __init__(self, rule: str, why: str, *, may_be_transient: bool = False) -> None:
        super().__init__(why)
        self.check = Check(rule, False, why, may_be_transient)


@dataclass
class Tally:
    """The outcomes of the requests of one kind in one format."""

    kind: str
    form: str
    sent: int = 0
    answered: int = 0
    refused: int = 0
    wrong: int = 0


@dataclass
class Findings:
    """The results of a validation, collected while it runs.

    Attributes:
        server: `kerasline`, or the program of the command.
        largest_difference: largest difference between the server's answers and the model's own, relative for
            numbers above 1.
        problems: dicts with `kind`, `form`, `case` and `why`.
        notes: facts about the model that break no rule, as sentences.
        ending: how the server ended by itself, or None.
        log: the last lines that the server printed.
    """

    server: str
    checks: list[Check] = field(default_factory=list)
    tallies: dict[tuple[str, str], Tally] = field(default_factory=dict)
    largest_difference: float | None = None
    latency: dict[str, Any] | None = None
    problems: list[dict[str, str]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    ending: str | None = None
    log: Sequence[str] = ()

    def tally(self, kind: str, form: str) -> Tally:
        """Return the tally of one kind and format, created if necessary."""
        return self.tallies.setdefault((kind, form), Tally(kind, form))

    def keep(self, rule: str, why: str) -> None:
        """Record a check that holds."""
        self.checks.append(Check(rule, True, why))

    @property
    def blessed(self) -> bool:
        return all(check.kept for check in self.checks)

    def blessing(self) -> dict[str, Any]:
        """Return the content of the blessing."""
        return {"blessed": self.blessed, "rules": [check.as_rule() for check in self.checks]}

    def as_json(self) -> dict[str, Any]:
        """Return the content of `validation.json`."""
        broken = [check for check in self.checks if not check.kept]
        return {
            "version": 1,
            "blessed": self.blessed,
            "may_be_transient": bool(broken) and all(check.may_be_transient for check in broken),
            "server": self.server,
            "checks": [{"rule": c.rule, "kept": c.kept, "why": c.why} for c in self.checks],
            "requests": [vars(tally) for tally in self.tallies.values()],
            "largest_difference": self.largest_difference,
            "latency": self.latency,
            "problems": self.problems[:MAX_PROBLEMS],
            "left_out": self.left_out,
            "notes": self.notes,
            "ending": self.ending,
            "log": list(self.log),
        }
