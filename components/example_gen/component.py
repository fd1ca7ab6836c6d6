"""ExampleGen: the base class of the stages that read external data and split it into Examples."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from kerasline.components.core.artifacts import Examples
from kerasline.components.core.component import Component, Context, Output, Parameters
from kerasline.components.core.errors import ParameterError

if TYPE_CHECKING:
    from kerasline.components.data.quarantine import Quarantine
    from kerasline.components.data.sources.source import Source

# A part of the data, in the terms of its source, with its split, or None if its rows are split one by one.
Parts = Sequence[tuple[str | None, Any]]


@dataclass(frozen=True, kw_only=True)
class ExampleGenSettings:
    """The parameters that all kinds of ExampleGen share. ExampleGen documents them."""

    input: Any
    splits: dict[str, float | str] = field(default_factory=lambda: {"train": 8, "eval": 1, "test": 1})
    split_by: Literal["hash", "group", "ratio", "column"] = "hash"
    split_key: list[str] | None = None
    stratify: str | None = None
    rows: str | None = None
    columns: list[str] | dict[str, str] | None = None
    row_hash: str | None = None
    constants: dict[str, bool | int | float | str] = field(default_factory=dict)

    @property
    def splits_are_locations(self) -> bool:
        """Whether the source has the splits already, and `splits` says where."""
        return all(isinstance(size, str) for size in self.splits.values())

    @property
    def original_names(self) -> dict[str, str] | None:
        """The names in the source of the columns to keep, by the names that they get. None if all are kept."""
        if self.columns is None or isinstance(self.columns, dict):
            return self.columns
        return {name: name for name in self.columns}

    @property
    def split_sizes(self) -> dict[str, float]:
        """The relative sizes by split. Empty if `splits` has locations."""
        return {name: size for name, size in self.splits.items() if not isinstance(size, str)}


class ExampleGen(Component):
    """Base class: reads data, splits it and writes it as columnar Examples.

    Every row that is read is either written or, if allowed, put into quarantine. The stage checks the counts.

    Args:
        input: the location of the data, as each kind of ExampleGen says.
        splits: relative sizes by name (`{"train": 8, "eval": 1}`), or the location of each split in the source
            (`{"train": "train/*.csv", "eval": "eval.csv"}`), as each kind says. Defaults to 8 : 1 : 1 for train, eval
            and test.
        split_by: how rows are assigned to splits. `hash`: by a hash of the row, so that equal rows are always in the
            same split, whatever the other data. `group`: rows with equal values in `split_key` stay together, and the
            sizes are as exact as that allows. `ratio`: in turn, so that the sizes are exact. `column`: by a column that
            names the split.
        split_key: the columns to hash, by default all; the columns that identify a group; or the one column that names
            the split.
        stratify: a column of classes, whose shares are the same in every split: the sizes are exact within each class.
            With `split_key`, rows with equal keys still stay together. Only by `hash` and `group`. Data are read twice
            then, and with `split_by="group"`.
        rows: a condition on the rows to keep, in the syntax of SQL, such as `trip_miles > 0 AND company IS NOT NULL`
            (see `RowExpression`). The others are counted as `left_out`.
        columns: names of the columns to keep, by default all; or a dict that renames them, from the new name to the
            name in the source (`{"source": "pt", "target": "en"}`). `rows` and `split_key` use the names in the source,
            also of other columns.
        row_hash: name of a further column, a hash of the row's other columns: an integer from 0 to 2^31 - 1, such as a
            seed that a model takes, or an id. Equal rows have equal ones, whatever the other data.
        constants: values of further columns by name, the same in all rows, such as an input that only clients of the
            served model vary (`{"speed": 1.0}`).
    """

    NAME = "ExampleGen"
    VERSION = "3"
    LIBRARIES: ClassVar[tuple[str, ...]] = ("pyarrow",)

    settings: Parameters[ExampleGenSettings]
    examples: Output[Examples]

    @property
    def declared_splits(self) -> Sequence[str]:
        """The splits that the data will have, or none if only the source knows them."""
        return list(self.settings.splits)

    def check(self, inputs: Any) -> None:
        super().check(inputs)
        self._check_splits()

    def _source(self, quarantine: Quarantine, context: Context) -> Source:
        """Return the reader of the data."""
        raise NotImplementedError

    def _parts(self, source: Any) -> Parts:
        """Return the parts of the data to read."""
        raise NotImplementedError

    @property
    def _divisible(self) -> bool:
        """Whether the source is a `DivisibleSource`, and the parameters allow its pieces to be read in parallel."""
        return False

    def _quarantine_file(self, examples: Examples) -> Path | None:
        """Return the file for bad rows, or None if they are an error."""
        return None

    def run(self, inputs: Any, outputs: Any, context: Context) -> Mapping[str, Any]:
        from kerasline.components.data.quarantine import Quarantine
        from kerasline.components.data.sources.source import SchemaChanged

        quarantine = Quarantine(self._quarantine_file(outputs.examples))
        source = self._source(quarantine, context)
        parts = self._parts(source)
        try:
            while True:
                quarantine.restart()
                try:
                    return self._write(parts, source, quarantine, outputs.examples, context)
                except SchemaChanged:
                    continue
        finally:
            quarantine.close()

    def _write(
        self, parts: Parts, source: Any, quarantine: Quarantine, examples: Examples, context: Context
    ) -> dict[str, Any]:
        from kerasline.components.data.beam_runners import runs_locally
        from kerasline.components.data.shards import ExamplesWriter
        from kerasline.components.data.sources.source import DivisibleSource, SchemaChanged
        from kerasline.components.example_gen.ingestion import count, count_on_engine, ingest, ingest_on_engine
        from kerasline.components.example_gen.selection import SelectedSource
        from kerasline.components.example_gen.splitting import SplitRule

        settings = self.settings
        originals = settings.original_names
        kept = list((originals or {}).values())
        selected = SelectedSource(source, settings.rows, kept, settings.row_hash, settings.constants)
        if originals is not None:
            further = [settings.row_hash] if settings.row_hash else []
            originals = {**originals, **{name: name for name in (*further, *settings.constants)}}
        names = list(dict.fromkeys(name for name, _ in parts if name)) or list(settings.splits)
        key = settings.split_key or kept or None
        rule = SplitRule(settings.split_by, settings.split_sizes, key, settings.stratify, self._data_name())
        divided = [(name, source.pieces(part) if self._divisible else [part]) for name, part in parts]
        pieces = [(name, piece) for name, several in divided for piece in several]
        on_engine = self._divisible and len(pieces) > 1 and not runs_locally(context.beam_options)
        if rule.needs_counts:
            counts = count_on_engine(pieces, selected, rule, context) if on_engine else count(pieces, selected, rule)
            rule = rule.counted(counts)
            selected.left_out = 0
            quarantine.restart()
        before = source.rows_read
        with ExamplesWriter(examples, names, originals) as writer:
            if on_engine:
                columns = ingest_on_engine(pieces, selected, rule, names, writer, context)
            else:
                columns = ingest(divided, selected, rule, writer, context.report)
                if isinstance(source, DivisibleSource) and source.merge_inferred([source.inferred]):
                    raise SchemaChanged
            read = source.rows_read - before
            writer.check_row_counts(read, quarantine.rows + selected.left_out)
            writer.check_no_empty_split(self._data_name())
            writer.facts = {"rows_read": read, "quarantined": quarantine.rows}
            if settings.rows:
                writer.facts["left_out"] = selected.left_out
            if spellings := getattr(source, "spellings", None):
                news = {old: new for new, old in (originals or {}).items()}
                writer.facts["spellings"] = {news.get(name, name): value for name, value in spellings.items()}
        metrics = {**writer.rows, "columns": columns}
        if selected.left_out:
            metrics["left_out"] = selected.left_out
        return {**metrics, "quarantined": quarantine.rows} if quarantine.rows else metrics

    def _data_name(self) -> str:
        """Return what to call the data in messages."""
        return str(self.settings.input or "the data")

    def _check_splits(self) -> None:
        settings = self.settings
        sizes = settings.split_sizes
        if not settings.splits or 0 < len(sizes) < len(settings.splits):
            raise ParameterError(
                f"ExampleGen.splits: expected either a size or a location for every split, received {settings.splits}"
            )
        for name in settings.splits:
            if name in ("", ".", "..") or re.search(r"[/\\\0]", name):
                raise ParameterError(f"ExampleGen.splits: expected names that folders can have, received {name!r}")
        if not all(size > 0 for size in sizes.values()):
            raise ParameterError(f"ExampleGen.splits: expected positive sizes, received {settings.splits}")
        if settings.split_by == "column" and len(settings.split_key or ()) != 1:
            raise ParameterError(
                f"ExampleGen.split_key: expected one column that names the split, received {settings.split_key}"
            )
        if settings.split_by == "group" and not settings.split_key:
            raise ParameterError("ExampleGen.split_key: split_by=group needs the columns that identify a group")
        needs_counts = settings.split_by == "group" or settings.stratify is not None
        if needs_counts and (settings.split_by in ("ratio", "column") or settings.splits_are_locations):
            chosen = "splits with locations" if settings.splits_are_locations else f"split_by={settings.split_by}"
            parameter = "split_by=group" if settings.stratify is None else "stratify"
            raise ParameterError(f"ExampleGen: {parameter} cannot be combined with {chosen}; remove one of them")
