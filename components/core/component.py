"""The contract of a component: declared, typed inputs, outputs and parameters, and `run`.

A component is a pure step. It reads its inputs, writes its outputs into folders that it is
given, and returns the figures worth showing::

    class RowCount(Component):
        \"\"\"Counts the rows of a split.\"\"\"

        examples: Input[Examples]
        report: Output[Report]
        split: Parameter[str] = "train"

        def run(self, inputs, outputs, context):
            rows = inputs.examples.rows(self.split)
            (outputs.report.path / "rows.txt").write_text(str(rows))
            return {"rows": rows}

It runs alone, in a test or a notebook, as `RowCount(Examples("folder")).execute("out")`, or as a
node of a pipeline, where its input is another component: `RowCount(CsvExampleGen("a.csv"))`.
"""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, Generic, TypeVar

from kerasline.components.core.artifacts import Artifact
from kerasline.components.core.errors import ParameterError, WiringError, nearest

T = TypeVar("T")


class Input(Generic[T]):
    """Annotation: an artifact that the component reads. `= None` makes it optional."""


class Output(Generic[T]):
    """Annotation: an artifact that the component writes."""


class Parameter(Generic[T]):
    """Annotation: a value that shapes what the component does; part of its fingerprint."""


REQUIRED: Any = type("Required", (), {"__repr__": lambda self: "<required>"})()


@dataclass(frozen=True)
class InputSpec:
    type: type[Artifact]
    optional: bool


@dataclass(frozen=True)
class ParameterSpec:
    type: Any
    default: Any


@dataclass(frozen=True)
class Spec:
    """What a component class declares, each dict in the order of declaration."""

    inputs: dict[str, InputSpec]
    outputs: dict[str, type[Artifact]]
    parameters: dict[str, ParameterSpec]


@dataclass(frozen=True)
class Channel:
    """One output of one component, before it has run: an edge's upstream end."""

    producer: Component
    name: str
    type: type[Artifact]

    def __str__(self) -> str:
        return f"{self.producer.name}.{self.name} ({self.type.__name__})"


@dataclass(frozen=True)
class LastBlessed:
    """For an input of a stage that judges: what the same stage took as `input` when it last blessed that.

    It is looked for in earlier runs of the same pipeline, and is never what the stage takes as `input`
    now; where there is none, the input is left out.
    """

    input: str


@dataclass(frozen=True)
class Context:
    """What surrounds a run, without being part of what it computes.

    Attributes:
        work_dir: an empty folder for temporary files; gone when the run ends.
        beam_options: options for the Beam pipelines that the component starts.
        cache_dir: a folder where partial results may be kept between runs, by content; or None.
        state_dir: a folder that this very work, same inputs and same parameters, finds again after it
            was killed, and that goes when it is done; or None.
        report: called with a short text ("epoch 3 of 10, loss 0.21") on long work.
    """

    work_dir: Path
    beam_options: Sequence[str] = ()
    report: Callable[[str], None] = field(default=lambda text: None)
    cache_dir: Path | None = None
    state_dir: Path | None = None


class Component:
    """Base of every stage. See the module's docstring for the whole contract.

    Class attributes:
        NAME: the node's name in a pipeline unless `name=` is given; the class's name by default.
        VERSION: raised whenever the same inputs and parameters would give other outputs.
        LIBRARIES: distributions whose versions decide the outputs, for the fingerprint.
        IMPORTED_ALONE: modules during whose import no other thread may import anything, because they replace
            Python's own `__import__` meanwhile. A run imports them before its stages begin.

    Args:
        *arguments: inputs, then parameters, in the order in which the class declares them.
        name: the node's name, unique in its pipeline.
        **named: inputs (a component, one of its outputs, or an artifact) and parameters.

    Raises:
        WiringError: an input is missing, unknown or of the wrong type.
        ParameterError: a parameter is missing, unknown or of the wrong type.
    """

    NAME: ClassVar[str] = ""
    VERSION: ClassVar[str] = "1"
    LIBRARIES: ClassVar[tuple[str, ...]] = ()
    IMPORTED_ALONE: ClassVar[tuple[str, ...]] = ()

    def __init__(self, *arguments: Any, name: str | None = None, **named: Any) -> None:
        self.name = name or self.NAME or type(self).__name__
        spec = type(self).spec()
        given = self._bind(spec, arguments, named)
        self.inputs: dict[str, Channel | Artifact | LastBlessed] = {}
        for field_name, input_spec in spec.inputs.items():
            value = given.pop(field_name, None)
            if value is not None:
                self.inputs[field_name] = self._connect(field_name, input_spec.type, value)
            elif not input_spec.optional:
                raise WiringError(f"{self.name}.{field_name}: no input given, {input_spec.type.__name__} wanted")
        self.outputs = {key: Channel(self, key, kind) for key, kind in spec.outputs.items()}
        for field_name, parameter in spec.parameters.items():
            value = given.get(field_name, parameter.default)
            setattr(self, field_name, self._check_parameter(field_name, parameter, value))

    @classmethod
    @functools.cache
    def spec(cls) -> Spec:
        """The inputs, outputs and parameters that this class declares by its annotations."""
        inputs, outputs, parameters = {}, {}, {}
        for name, hint in _annotations(cls):
            kind, (inner,) = typing.get_origin(hint), typing.get_args(hint)
            default = inspect.getattr_static(cls, name, REQUIRED)
            if kind is Input:
                inputs[name] = InputSpec(inner, optional=default is None)
            elif kind is Output:
                outputs[name] = inner
            else:
                parameters[name] = ParameterSpec(inner, default)
        return Spec(inputs, outputs, parameters)

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters' values by name, in the order of their declaration."""
        return {name: getattr(self, name) for name in type(self).spec().parameters}

    def identifying_parameters(self) -> dict[str, Any]:
        """The parameters that decide the outputs, for the fingerprint: all, unless a component knows of some that
        say only how it goes about it."""
        return self.parameters

    def run(self, inputs: Any, outputs: Any, context: Context) -> Mapping[str, Any] | None:
        """Does the component's work.

        Args:
            inputs: an attribute for each input: its artifact, or None where it was left out.
            outputs: an attribute for each output: an artifact whose `path` is an empty folder.
            context: work folder, Beam options, progress.

        Returns:
            The figures worth showing and keeping, by name; or None.

        Raises:
            StageSkipped: there is nothing to do, and why.
            KeraslineError: the user can mend it.
        """
        raise NotImplementedError

    def external_inputs(self) -> Sequence[Path | str]:
        """What `run` reads besides its inputs: files (hashed by content) and plain texts.

        Both become part of the fingerprint, so that a changed file re-runs the stage.
        """
        return ()

    def stale(self, outputs: Any) -> str | None:
        """Why outputs of an earlier run, whole as they are, no longer hold; None if they do.

        For components with effects outside their artifacts, such as a pushed model since deleted.
        """
        return None

    def execute(self, folder: str | Path, **context: Any) -> SimpleNamespace:
        """Runs the component alone, on artifacts given as its inputs, without a pipeline.

        Args:
            folder: where the outputs go, one sub-folder each; made if need be.
            **context: fields of `Context` to set.

        Returns:
            An attribute for each output, and `metrics`.

        Raises:
            WiringError: an input is another component's output instead of an artifact.
        """
        import tempfile

        for name, value in self.inputs.items():
            if isinstance(value, Channel):
                raise WiringError(f"{self.name}.{name}: {value} has not run; give an artifact to run a component alone")
        outputs = self.output_artifacts(Path(folder))
        with tempfile.TemporaryDirectory(prefix="kerasline-") as work_dir:
            metrics = self.run(self.input_artifacts(self.inputs), outputs, Context(Path(work_dir), **context))
        return SimpleNamespace(**vars(outputs), metrics=dict(metrics or {}))

    def input_artifacts(self, artifacts: Mapping[str, Any]) -> SimpleNamespace:
        """The namespace that `run` takes as `inputs`; those left out, or not known here, are None."""
        found = {name: value for name, value in artifacts.items() if isinstance(value, Artifact)}
        return SimpleNamespace(**{name: found.get(name) for name in type(self).spec().inputs})

    def output_artifacts(self, folder: Path) -> SimpleNamespace:
        """The namespace that `run` takes as `outputs`: a new sub-folder of `folder` for each."""
        artifacts = {}
        for name, kind in type(self).spec().outputs.items():
            (folder / name).mkdir(parents=True, exist_ok=True)
            artifacts[name] = kind(folder / name)
        return SimpleNamespace(**artifacts)

    def with_parameters(self, changes: Mapping[str, Any]) -> None:
        """Sets parameters anew, from Python values or from the texts of a command line.

        A key may reach into a dict: `hyperparameters.units`.

        Raises:
            ParameterError: an unknown name (with the nearest right one) or a wrong value.
        """
        known = type(self).spec().parameters
        for key, value in changes.items():
            name, _, inner = key.partition(".")
            if name not in known:
                raise ParameterError(f"{self.name}.{key}: no such parameter; {nearest(name, known)}")
            if inner:
                value = {**(getattr(self, name) or {}), inner: _literal(value)}
            setattr(self, name, self._check_parameter(name, known[name], value))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"

    def _bind(self, spec: Spec, arguments: Sequence[Any], named: dict[str, Any]) -> dict[str, Any]:
        order = [*spec.inputs, *spec.parameters]
        if len(arguments) > len(order):
            raise WiringError(
                f"{self.name}: {len(arguments)} arguments given, at most {len(order)} wanted ({', '.join(order)})"
            )
        given = dict(zip(order, arguments))
        for key, value in named.items():
            if key in given:
                raise WiringError(f"{self.name}.{key}: given twice, by place and by name")
            if key not in order:
                raise WiringError(f"{self.name}.{key}: no such input or parameter; {nearest(key, order)}")
            given[key] = value
        return given

    def _connect(self, name: str, wanted: type[Artifact], value: Any) -> Channel | Artifact | LastBlessed:
        if isinstance(value, LastBlessed):
            return self._connect_earlier(name, wanted, value)
        if isinstance(value, Component):
            fitting = [c for c in value.outputs.values() if issubclass(c.type, wanted)]
            if len(fitting) == 1:
                return fitting[0]
            offered = ", ".join(str(c) for c in value.outputs.values()) or "nothing"
            problem = "several outputs fit" if fitting else "no output fits"
            raise WiringError(f"{self.name}.{name}: {wanted.__name__} wanted, {problem}: {value.name} gives {offered}")
        if isinstance(value, (Channel, Artifact)):
            came = value.type if isinstance(value, Channel) else type(value)
            if issubclass(came, wanted):
                return value
            raise WiringError(f"{self.name}.{name}: {wanted.__name__} wanted, {value} given")
        raise WiringError(
            f"{self.name}.{name}: {wanted.__name__} wanted (a component, one of its outputs or an "
            f"artifact), {type(value).__name__} given"
        )

    def _connect_earlier(self, name: str, wanted: type[Artifact], value: LastBlessed) -> LastBlessed:
        known = type(self).spec().inputs
        if value.input not in known or value.input == name:
            others = [other for other in known if other != name]
            raise WiringError(f"{self.name}.{name}: {value} names no other input; {nearest(value.input, others)}")
        came = known[value.input].type
        if not known[name].optional or not issubclass(came, wanted):
            raise WiringError(f"{self.name}.{name}: {wanted.__name__} wanted, {value} may be none or {came.__name__}")
        return value

    def _check_parameter(self, name: str, spec: ParameterSpec, value: Any) -> Any:
        if value is REQUIRED:
            raise ParameterError(f"{self.name}.{name}: no value given, and it has no default")
        if value is spec.default:
            return value
        return parse_value(f"{self.name}.{name}", spec.type, value)


def component(function: Callable[..., Any]) -> type[Component]:
    """Makes a component class of a plain function.

    Arguments annotated `Input[...]` and `Output[...]` receive artifacts, all others are
    parameters; the function may return metrics. It is called with what `run` would get::

        @component
        def RowCount(examples: Input[Examples], report: Output[Report], split: str = "train"):
            ...

    Raises:
        WiringError: an argument has no annotation.
    """
    annotations: dict[str, Any] = {}
    defaults: dict[str, Any] = {}
    # Not typing.get_type_hints: until Python 3.11 it makes an argument of default None Optional.
    for name, argument in inspect.signature(function, eval_str=True).parameters.items():
        if argument.annotation is argument.empty:
            raise WiringError(f"{function.__name__}: argument {name!r} has no annotation")
        hint = argument.annotation
        declared = typing.get_origin(hint) in (Input, Output, Parameter)
        annotations[name] = hint if declared else Parameter[hint]
        if argument.default is not argument.empty:
            defaults[name] = argument.default

    def run(self: Component, inputs: Any, outputs: Any, context: Context) -> Any:
        return function(**vars(inputs), **vars(outputs), **self.parameters)

    body = {
        **defaults,
        "__annotations__": annotations,
        "__doc__": function.__doc__,
        "__module__": function.__module__,
        "__qualname__": function.__qualname__,
        "FUNCTION": staticmethod(function),
        "run": run,
    }
    return type(function.__name__, (Component,), body)


def about(node: Component) -> str:
    """The first paragraph of the docstring of a component's own class; empty where it has none."""
    paragraph = inspect.cleandoc(type(node).__doc__ or "").partition("\n\n")[0]
    return " ".join(paragraph.replace("`", "").split())


def parse_value(where: str, kind: Any, value: Any) -> Any:
    """Checks `value` against the type `kind`; a text is read as that type where it can be.

    Raises:
        ParameterError: naming `where`, the value and the type.
    """
    from pydantic import ValidationError

    adapter = _adapter(kind)
    attempts: list[Callable[[], Any]] = [lambda: adapter.validate_python(value)]
    if isinstance(value, str):
        attempts.append(lambda: adapter.validate_json(value))
    for attempt in attempts:
        try:
            return attempt()
        except ValidationError as error:
            first = error.errors()[0]
    raise ParameterError(f"{where}: {value!r} given, {_called(kind)} wanted ({first['msg']})")


def _called(kind: Any) -> str:
    """A type in a word: `int` for one with bounds, `int | None` for an optional one."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return _called(parts[0])
    if origin in (typing.Union, types.UnionType):
        return " | ".join(map(_called, parts))
    if origin is typing.Literal:
        return "one of " + ", ".join(map(str, parts))
    return "None" if kind is type(None) else getattr(kind, "__name__", str(kind).replace("typing.", ""))


@functools.cache
def _adapter(kind: Any) -> Any:
    from pydantic import ConfigDict, PydanticUserError, TypeAdapter

    try:
        return TypeAdapter(kind, config=ConfigDict(arbitrary_types_allowed=True))
    except PydanticUserError:  # the type carries its own configuration
        return TypeAdapter(kind)


def _literal(value: Any) -> Any:
    """A command line's text as the JSON value that it spells, or itself."""
    import json

    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _annotations(cls: type) -> Iterator[tuple[str, Any]]:
    hints = typing.get_type_hints(cls, include_extras=True)
    for name, hint in hints.items():
        if typing.get_origin(hint) in (Input, Output, Parameter):
            yield name, hint
