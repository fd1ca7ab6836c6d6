"""What was checked and how it went; the verdict that Pusher reads, and the account that people read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

MOST_PROBLEMS = 20  # told one by one; their number is told of all


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        rule: what is wanted.
        why: what was found, in a sentence.
        maybe_the_machine: whether a busy or small machine can be what broke it: then it is worth another try.
        bound, value: of a figure that has a bound.
    """

    rule: str
    kept: bool
    why: str
    maybe_the_machine: bool = False
    bound: float | None = None
    value: float | None = None

    def as_rule(self) -> dict[str, Any]:
        """In the form of `kerasline.components.core.artifacts.Blessing`."""
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
            "kept": self.kept,
            "why": self.why,
        }


class Refused(Exception):
    """The candidate broke a check in such a way that no further one can be made."""

    def __init__(self, rule: str, why: str, *, maybe_the_machine: bool = False) -> None:
        super().__init__(why)
        self.check = Check(rule, False, why, maybe_the_machine)


@dataclass
class Tally:
    """How the requests of one kind and form went."""

    kind: str
    form: str
    sent: int = 0
    answered: int = 0
    refused: int = 0
    wrong: int = 0


@dataclass
class Account:
    """All that is found out, as it is found out.

    Attributes:
        server: what answered: `kerasline`, or the program of the command.
        largest_difference: of any number, between the server's answers and those in process; of one greater than 1
            as a part of it.
        problems: a dict each: `kind`, `form`, `case`, `why`.
        ending: how the server ended by itself, if it did.
    """

    server: str
    checks: list[Check] = field(default_factory=list)
    tallies: dict[tuple[str, str], Tally] = field(default_factory=dict)
    largest_difference: float | None = None
    latency: dict[str, Any] | None = None
    problems: list[dict[str, str]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    ending: str | None = None
    log: Sequence[str] = ()

    def tally(self, kind: str, form: str) -> Tally:
        return self.tallies.setdefault((kind, form), Tally(kind, form))

    @property
    def blessed(self) -> bool:
        return all(check.kept for check in self.checks)

    def blessing(self) -> dict[str, Any]:
        return {"blessed": self.blessed, "rules": [check.as_rule() for check in self.checks]}

    def as_json(self) -> dict[str, Any]:
        broken = [check for check in self.checks if not check.kept]
        return {
            "version": 1,
            "blessed": self.blessed,
            "maybe_the_machine": bool(broken) and all(check.maybe_the_machine for check in broken),
            "server": self.server,
            "checks": [{"rule": c.rule, "kept": c.kept, "why": c.why} for c in self.checks],
            "requests": [vars(tally) for tally in self.tallies.values()],
            "largest_difference": self.largest_difference,
            "latency": self.latency,
            "problems": self.problems[:MOST_PROBLEMS],
            "left_out": self.left_out,
            "ending": self.ending,
            "log": list(self.log),
        }
