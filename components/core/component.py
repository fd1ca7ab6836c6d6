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

import dataclasses
import functools
import inspect
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, ClassVar, TypeVar

from kerasline.components.core.artifacts import Artifact
from kerasline.components.core.errors import ParameterError, WiringError, nearest
from kerasline.components.core.parameters import (
    REQUIRED,
    ParameterSpec,
    check_parameter,
    fields_as_parameters,
    json_or_text,
)

T = TypeVar("T")

_INPUT, _OUTPUT, _PARAMETER, _PARAMETERS = "input", "output", "parameter", "parameters"

Input = Annotated[T | None, _INPUT]
"""Annotation: an artifact that the component reads. `= None` makes it optional."""

Output = Annotated[T, _OUTPUT]
"""Annotation: an artifact that the component writes."""

Parameter = Annotated[T, _PARAMETER]
"""Annotation: a value that shapes what the component does; part of its fingerprint."""

Parameters = Annotated[T, _PARAMETERS]
"""Annotation: a frozen dataclass, each field of which is a parameter of the component."""


@dataclass(frozen=True)
class InputSpec:
    type: type[Artifact]
    optional: bool


@dataclass(frozen=True)
class Spec:
    """What a component class declares, each dict in the order of declaration.

    Attributes:
        settings: the attribute and the class of the `Parameters`; None where there are none.
    """

    inputs: dict[str, InputSpec]
    outputs: dict[str, type[Artifact]]
    parameters: dict[str, ParameterSpec]
    settings: tuple[str, type] | None


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
        self._set(
            {
                key: check_parameter(f"{self.name}.{key}", parameter, given.get(key, parameter.default))
                for key, parameter in spec.parameters.items()
            }
        )

    @classmethod
    @functools.cache
    def spec(cls) -> Spec:
        """The inputs, outputs and parameters that this class declares by its annotations.

        Raises:
            WiringError: `Parameters` of what is no frozen dataclass.
        """
        inputs, outputs, parameters, settings = {}, {}, {}, None
        for name, kind, inner in _declarations(cls):
            default = inspect.getattr_static(cls, name, REQUIRED)
            if kind is _INPUT:
                inputs[name] = InputSpec(inner, optional=default is None)
            elif kind is _OUTPUT:
                outputs[name] = inner
            elif kind is _PARAMETER:
                parameters[name] = ParameterSpec(inner, default)
            else:
                parameters |= fields_as_parameters(f"{cls.__name__}.{name}", inner)
                settings = (name, inner)
        return Spec(inputs, outputs, parameters, settings)

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters' values by name, in the order of their declaration."""
        return dict(self._parameters)

    def _set(self, values: Mapping[str, Any]) -> None:
        self._parameters = dict(values)
        spec = type(self).spec()
        in_settings: dict[str, Any] = {}
        if spec.settings:
            attribute, settings = spec.settings
            in_settings = {field.name: values[field.name] for field in dataclasses.fields(settings)}
            setattr(self, attribute, settings(**in_settings))
        for name, value in values.items():
            if name not in in_settings:
                setattr(self, name, value)

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
        values = self.parameters
        for key, value in changes.items():
            name, _, inner = key.partition(".")
            if name not in known:
                raise ParameterError(f"{self.name}.{key}: no such parameter; {nearest(name, known)}")
            if inner:
                value = {**(values[name] or {}), inner: json_or_text(value)}
            values[name] = check_parameter(f"{self.name}.{name}", known[name], value)
        self._set(values)

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
        declared = _marker(hint) is not None
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


def _declarations(cls: type) -> Iterator[tuple[str, str, Any]]:
    """Each annotation that declares something: its name, what it declares, and the type inside."""
    for name, hint in typing.get_type_hints(cls, include_extras=True).items():
        kind = _marker(hint)
        if kind is not None:
            inner, *others = typing.get_args(hint)
            if kind is _INPUT:  # `Input[T]` is `T | None`
                (inner,) = (part for part in typing.get_args(inner) if part is not types.NoneType)
            bounds = [one for one in others if one is not kind]
            yield name, kind, typing.Annotated[(inner, *bounds)] if bounds else inner


def _marker(hint: Any) -> str | None:
    """What an annotation declares; None if nothing of a component's."""
    markers = (_INPUT, _OUTPUT, _PARAMETER, _PARAMETERS)
    if typing.get_origin(hint) is not typing.Annotated:
        return None
    return next((one for one in hint.__metadata__ if any(one is marker for marker in markers)), None)
