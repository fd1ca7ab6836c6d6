"""Conditions on rows as text, in the syntax of SQL: `trip_miles > 0 AND company IS NOT NULL`."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from kerasline.components.core.errors import DataError, ParameterError, nearest

_TOKEN = re.compile(
    r"""\s*(?:(?P<number>\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?)
    |(?P<text>'(?:[^']|'')*')
    |(?P<quoted>"[^"]+"|`[^`]+`)
    |(?P<word>[^\W\d][\w.]*)
    |(?P<sign><=|>=|<>|!=|==|[=<>()+\-*/,]))""",
    re.VERBOSE,
)
_KEYWORDS = {"AND", "OR", "NOT", "IS", "NULL", "IN", "BETWEEN", "LIKE", "TRUE", "FALSE"}
_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "=": lambda a, b: a == b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<>": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


class RowExpression:
    """A condition on rows. A row for which it is null, because a value is missing, does not fulfil it, as in SQL.

    Args:
        text: comparisons of columns, numbers and texts in single quotes (`=`, `!=`, `<`, `<=`, `>`, `>=`, `IS NULL`,
            `IN`, `BETWEEN`, `LIKE`), combined with `AND`, `OR`, `NOT`, `+`, `-`, `*`, `/` and parentheses. Names with
            other characters than letters, digits, `_` and `.` are in double quotes.
        parameter: name of the parameter in messages.

    Raises:
        ParameterError: the text is no such condition.
    """

    def __init__(self, text: str, parameter: str) -> None:
        self._text, self._parameter = text, parameter
        parser = _Parser(text, parameter)
        self._expression = parser.parse()
        self.columns: Sequence[str] = list(dict.fromkeys(parser.columns))

    def filter(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return the rows that fulfil the condition.

        Raises:
            DataError: a column does not exist, or its type does not fit the condition.
        """
        for name in self.columns:
            if name not in batch.schema.names:
                raise DataError(
                    f"{self._parameter}: the data has no column {name!r}; {nearest(name, batch.schema.names)}"
                )
        try:
            return batch.filter(self._expression)
        except (pa.ArrowException, TypeError) as error:
            kinds = ", ".join(f"{name} is {batch.schema.field(name).type}" for name in self.columns)
            raise DataError(
                f"{self._parameter}: {self._text!r} does not fit the types of the columns ({kinds}): {error}"
            ) from error


class _Parser:
    """A recursive-descent parser. Each method parses what binds more tightly than the one before."""

    def __init__(self, text: str, parameter: str) -> None:
        self._text, self._parameter = text, parameter
        self._tokens = self._split()
        self.columns: list[str] = []

    def parse(self) -> pc.Expression:
        expression = self._either()
        if self._tokens:
            raise self._error(self._tokens[0][1])
        if not isinstance(expression, pc.Expression):
            raise self._error(self._text)
        return expression

    def _split(self) -> list[tuple[str, str]]:
        found, at, text = [], 0, self._text.rstrip()
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None:
                raise self._error(text[at:].strip()[:20])
            kind, token = str(match.lastgroup), match[str(match.lastgroup)]
            if kind == "word" and token.upper() in _KEYWORDS:
                kind, token = "keyword", token.upper()
            found.append((kind, token))
            at = match.end()
        return found

    def _error(self, token: str) -> ParameterError:
        return ParameterError(
            f"{self._parameter}: expected a condition such as \"trip_miles > 0 AND company != 'none'\", received "
            f"{self._text!r}; cannot read {token!r}"
        )

    def _take(self, *tokens: str) -> str | None:
        """Remove and return the next token if it is one of these."""
        if self._tokens and self._tokens[0][0] in ("keyword", "sign") and self._tokens[0][1] in tokens:
            return self._tokens.pop(0)[1]
        return None

    def _expect(self, token: str) -> None:
        if not self._take(token):
            raise self._error(self._tokens[0][1] if self._tokens else "the end")

    def _either(self) -> Any:
        expression = self._both()
        while self._take("OR"):
            expression = expression | self._both()
        return expression

    def _both(self) -> Any:
        expression = self._negated()
        while self._take("AND"):
            expression = expression & self._negated()
        return expression

    def _negated(self) -> Any:
        return ~self._negated() if self._take("NOT") else self._comparison()

    def _comparison(self) -> Any:
        left = self._sum()
        sign = self._take(*_COMPARISONS)
        if sign:
            return _COMPARISONS[sign](left, self._sum())
        if self._take("IS"):
            negated = self._take("NOT")
            self._expect("NULL")
            return left.is_valid() if negated else left.is_null()
        negated = self._take("NOT")
        if self._take("BETWEEN"):
            low = self._sum()
            self._expect("AND")
            found = (left >= low) & (left <= self._sum())
        elif self._take("IN"):
            # As comparisons, so that a missing value is in no list and outside none.
            values = self._list()
            found = left == values[0]
            for value in values[1:]:
                found = found | (left == value)
        elif self._take("LIKE"):
            found = pc.match_like(left, self._constant("text"))
        elif negated:
            raise self._error("NOT")
        else:
            return left
        return ~found if negated else found

    def _list(self) -> list[Any]:
        self._expect("(")
        values = [self._sum()]
        while self._take(","):
            values.append(self._sum())
        self._expect(")")
        return values

    def _sum(self) -> Any:
        value = self._product()
        while sign := self._take("+", "-"):
            value = value + self._product() if sign == "+" else value - self._product()
        return value

    def _product(self) -> Any:
        value = self._primary()
        while sign := self._take("*", "/"):
            value = value * self._primary() if sign == "*" else value / self._primary()
        return value

    def _primary(self) -> Any:
        if self._take("("):
            expression = self._either()
            self._expect(")")
            return expression
        if self._take("-"):
            return pc.scalar(0) - self._primary()
        if word := self._take("TRUE", "FALSE"):
            return pc.scalar(word == "TRUE")
        kind = self._tokens[0][0] if self._tokens else ""
        if kind in ("word", "quoted"):
            name = self._tokens.pop(0)[1].strip('"`')
            self.columns.append(name)
            return pc.field(name)
        if kind == "text":
            return pc.scalar(self._constant("text"))
        number = self._constant("number")
        # The cast keeps Arrow from comparing large integers as float32, which holds some fractions exactly.
        return pc.scalar(number).cast(pa.float64()) if isinstance(number, float) else pc.scalar(number)

    def _constant(self, kind: str) -> Any:
        if not self._tokens or self._tokens[0][0] != kind:
            raise self._error(self._tokens[0][1] if self._tokens else "the end")
        token = self._tokens.pop(0)[1]
        return token[1:-1].replace("''", "'") if kind == "text" else ast.literal_eval(token)
