"""The contract of a component: declared, typed inputs, outputs and parameters, and `run`.

A component is a pure step. It reads its inputs, writes its outputs into folders that already exist, and returns
the metrics to record::

    class RowCount(Component):
        \"\"\"Counts the rows of a split.\"\"\"

        examples: Input[Examples]
        report: Output[Report]
        split: Parameter[str] = "train"

        def run(self, inputs, outputs, context):
            rows = inputs.examples.rows(self.split)
            (outputs.report.path / "rows.txt").write_text(str(rows))
            return {"rows": rows}

It runs alone, in a test or a notebook, as `RowCount(Examples("folder")).execute("out")`. In a pipeline its input is
another component: `RowCount(CsvExampleGen("a.csv"))`.

A component with many parameters declares them as the fields of a frozen dataclass, so that helper functions can take
them as one typed value::

    @dataclass(frozen=True, kw_only=True)
    class RowCountSettings:
        split: str = "train"

    class RowCount(Component):
        examples: Input[Examples]
        settings: Parameters[RowCountSettings]
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import types
import typing
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, ClassVar, TypeVar

from kerasline.components.core.artifacts import Artifact, Examples
from kerasline.components.core.errors import ParameterError, WiringError, check_known, nearest
from kerasline.components.core.parameters import (
    COLUMN,
    REQUIRED,
    SPLIT,
    ParameterSpec,
    check_parameter,
    fields_as_parameters,
    json_or_text,
    names_of,
)

T = TypeVar("T")

_INPUT, _OUTPUT, _PARAMETER, _PARAMETERS = "input", "output", "parameter", "parameters"

Input = Annotated[T | None, _INPUT]
"""Annotate an artifact that the component reads. The default `None` makes it optional.

With `dict[str, T]` the component reads any number of artifacts by name. The edge of `judges={"features": ...}` is named
`judges.features`, and `run` receives the dict `inputs.judges`.
"""

Output = Annotated[T, _OUTPUT]
"""Annotate an artifact that the component writes."""

Parameter = Annotated[T, _PARAMETER]
"""Annotate a value that decides what the component does. It is part of the fingerprint."""

Parameters = Annotated[T, _PARAMETERS]
"""Annotate a frozen dataclass. Each of its fields is a parameter of the component."""


@dataclass(frozen=True)
class InputSpec:
    """An input.

    Attributes:
        type: class of the artifact, or a union of classes.
        by_name: whether it is a dict of artifacts.
    """

    type: type[Artifact]
    optional: bool
    by_name: bool = False


@dataclass(frozen=True)
class Spec:
    """The declarations of a component class. Each dict keeps the order of declaration.

    Attributes:
        settings: attribute name and class of the `Parameters`, or None.
    """

    inputs: dict[str, InputSpec]
    outputs: dict[str, type[Artifact]]
    parameters: dict[str, ParameterSpec]
    settings: tuple[str, type] | None

    def input(self, edge: str) -> InputSpec:
        """Return the input of an edge, such as `model` or `judges.features`."""
        return self.inputs[edge.partition(".")[0]]


@dataclass(frozen=True)
class Channel:
    """One output of a component in a pipeline: the upstream end of an edge."""

    producer: Component
    name: str
    type: type[Artifact]

    def __str__(self) -> str:
        return f"{self.producer.name}.{self.name} ({self.type.__name__})"


@dataclass(frozen=True)
class LastBlessed:
    """The artifact that this stage received as `input` in the last run in which it blessed that artifact.

    Use it as the value of an optional input of a stage that blesses, such as `Evaluator.baseline`. It is looked up in
    earlier runs of the same pipeline and is never the artifact that the stage receives as `input` in this run. If
    there is none, the input is None.

    Args:
        input: the name of the other input.
    """

    input: str


@dataclass(frozen=True)
class Context:
    """The environment of a run. Nothing in it affects the outputs.

    Attributes:
        work_dir: an empty folder for temporary files, deleted when the run ends.
        beam_options: options for the Beam pipelines that the component starts.
        cache_dir: a folder for partial results that later runs may reuse, addressed by content; or None.
        state_dir: a folder for checkpoints, or None. After a kill, the next run with the same inputs and parameters
            receives the same folder. It is deleted when the run succeeds.
        report: called with a short progress text, such as "epoch 3 of 10, loss 0.21".
    """

    work_dir: Path
    beam_options: Sequence[str] = ()
    report: Callable[[str], None] = field(default=lambda text: None)
    cache_dir: Path | None = None
    state_dir: Path | None = None


class Component:
    """Base class of every stage. The module's docstring shows how to write one.

    Class attributes:
        NAME: default name of the node in a pipeline. Defaults to the name of the class.
        VERSION: increase it whenever the same inputs and parameters would produce different outputs.
        LIBRARIES: distributions whose versions are part of the fingerprint.

    Args:
        *arguments: inputs, then parameters, in the order of declaration.
        name: name of the node, unique in its pipeline.
        files: files and folders that functions of the user read while this stage runs: weights, vocabularies,
            annotations. The stage runs again when their content changes.
        **named: inputs (a component, one of its outputs, or an artifact) and parameters.

    Raises:
        WiringError: an input is missing, unknown or of the wrong type.
        ParameterError: a parameter is missing, unknown or of the wrong type, or one of the files does not exist.
    """

    NAME: ClassVar[str] = ""
    VERSION: ClassVar[str] = "1"
    LIBRARIES: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self, *arguments: Any, name: str | None = None, files: Sequence[str | Path] | None = None, **named: Any
    ) -> None:
        self.name = name or self.NAME or type(self).__name__
        spec = type(self).spec()
        if "files" in (*spec.inputs, *spec.parameters):  # the class has a use of its own for the name
            named, files = named if files is None else {**named, "files": files}, None
        self._files = self._existing(files or ())
        given = self._bind(spec, arguments, named)
        self.inputs: dict[str, Channel | Artifact | LastBlessed] = {}
        for field_name, input_spec in spec.inputs.items():
            value = given.pop(field_name, None)
            if input_spec.by_name:
                self.inputs |= self._connect_by_name(field_name, input_spec.type, value)
            elif value is not None:
                self.inputs[field_name] = self._connect(field_name, input_spec.type, value)
            elif not input_spec.optional:
                raise WiringError(f"{self.name}.{field_name}: missing input, expected {input_spec.type.__name__}")
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
        """Return the inputs, outputs and parameters that the annotations of this class declare.

        Raises:
            WiringError: the argument of `Parameters` is not a frozen dataclass.
        """
        inputs, outputs, parameters, settings = {}, {}, {}, None
        for name, kind, inner in _declarations(cls):
            default = inspect.getattr_static(cls, name, REQUIRED)
            if kind is _INPUT:
                by_name = typing.get_origin(inner) is dict
                kind_of_input = typing.get_args(inner)[1] if by_name else inner
                inputs[name] = InputSpec(kind_of_input, optional=default is None, by_name=by_name)
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
        """The values of the parameters by name, in the order of declaration."""
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
        """Return the parameters that decide the outputs, for the fingerprint.

        Override it to leave out parameters that only affect how the work is done, such as the number of retries.
        """
        return self.parameters

    @property
    def imported_alone(self) -> Sequence[str]:
        """Modules that replace Python's `__import__` while they are imported. No other thread may import meanwhile.

        A run imports them before its stages begin.
        """
        return ()

    def check(self, inputs: Any) -> None:
        """Check the parameters as far as the inputs are known, so that a mistake is found before other stages run.

        It is called when a run begins, without the inputs that other stages produce; before each stage that runs
        earlier, with the inputs that exist by then; and before `run`, with all of them. It reads descriptions, not
        data or models, and takes no time. An override calls `super().check(inputs)`, which checks the parameters of the
        types `SplitName` and `ColumnName`.

        Args:
            inputs: as for `run`, but an input that does not exist yet is None, or what `preview` describes it by.

        Raises:
            KeraslineError: a parameter is wrong.
        """
        examples = getattr(inputs, "examples", None)
        if isinstance(examples, Examples):
            self.check_names(SPLIT, lambda: examples.splits)
            self.check_names(COLUMN, lambda: examples.schema().names)

    def check_machine(self) -> None:
        """Check that this machine has what the stage needs, such as an optional library.

        It is called before `run`, and already when a run begins whose stages run on this machine.

        Raises:
            KeraslineError: something is missing.
        """

    def check_names(self, kind: str, known: Callable[[], Collection[str]]) -> None:
        """Raise a ParameterError if a parameter names a split or column that does not exist.

        Args:
            kind: `SPLIT` or `COLUMN`.
            known: returns the names that exist. It is called only if a parameter names one.
        """
        for parameter, spec in type(self).spec().parameters.items():
            if names := list(names_of(kind, spec.type, self._parameters[parameter])):
                check_known(f"{self.name}.{parameter}", f"the data has no {kind}", names, known())

    def preview(self, inputs: Any) -> Mapping[str, Artifact]:
        """Return artifacts that describe outputs of this stage before it has run, for the checks of later stages.

        Args:
            inputs: as for `check`.
        """
        return {}

    def run(self, inputs: Any, outputs: Any, context: Context) -> Mapping[str, Any] | None:
        """Read the inputs and write the outputs.

        Args:
            inputs: has an attribute for each input: an artifact, or None if the input was omitted.
            outputs: has an attribute for each output: an artifact whose `path` is an empty folder.
            context: work folder, Beam options, progress.

        Returns:
            The metrics to display and record, by name, or None.

        Raises:
            StageSkipped: there is nothing to do. The message says why.
            KeraslineError: a mistake that the user can correct.
        """
        raise NotImplementedError

    def external_inputs(self) -> Sequence[Path | str]:
        """Return what `run` reads besides its inputs: paths of files (hashed by content) and plain strings.

        Both are part of the fingerprint, so that the stage runs again when a file changes.
        """
        return ()

    def declared_files(self) -> Sequence[tuple[str, Path]]:
        """Return all files of the argument `files`, each with its name below the folder that was given, or "."."""
        found = []
        for given in self._files:
            inside = [given] if given.is_file() else sorted(path for path in given.rglob("*") if path.is_file())
            found += [(path.relative_to(given).as_posix(), path) for path in inside]
        return found

    def stale(self, outputs: Any) -> str | None:
        """Return why intact outputs of an earlier run can no longer be reused, or None if they can.

        For components with effects outside their artifacts, such as a pushed model that was deleted since.
        """
        return None

    def execute(self, folder: str | Path, **context: Any) -> SimpleNamespace:
        """Run the component without a pipeline. Its inputs must be artifacts.

        Args:
            folder: folder for the outputs, one sub-folder each. Created if it does not exist.
            **context: fields of `Context` to set.

        Returns:
            A namespace with an attribute for each output, and `metrics`.

        Raises:
            WiringError: an input is the output of another component instead of an artifact.
        """
        import tempfile

        for name, value in self.inputs.items():
            if isinstance(value, Channel):
                raise WiringError(
                    f"{self.name}.{name}: {value} has not run; pass an artifact to run a component without a pipeline"
                )
        inputs = self.input_artifacts(self.inputs)
        self.check_machine()
        self.check(inputs)
        outputs = self.output_artifacts(Path(folder))
        with tempfile.TemporaryDirectory(prefix="kerasline-") as work_dir:
            metrics = self.run(inputs, outputs, Context(Path(work_dir), **context))
        return SimpleNamespace(**vars(outputs), metrics=dict(metrics or {}))

    def input_artifacts(self, artifacts: Mapping[str, Any]) -> SimpleNamespace:
        """Return the namespace that `run` receives as `inputs`. Omitted inputs are None.

        Args:
            artifacts: by edge, such as `model` or `judges.features`.
        """
        found: dict[str, Any] = {name: {} if spec.by_name else None for name, spec in type(self).spec().inputs.items()}
        for edge, value in artifacts.items():
            name, _, key = edge.partition(".")
            if isinstance(value, Artifact) and key:
                found[name][key] = value
            elif isinstance(value, Artifact):
                found[name] = value
        return SimpleNamespace(**found)

    def output_artifacts(self, folder: Path) -> SimpleNamespace:
        """Return the namespace that `run` receives as `outputs`, with a new sub-folder of `folder` for each."""
        artifacts = {}
        for name, kind in type(self).spec().outputs.items():
            (folder / name).mkdir(parents=True, exist_ok=True)
            artifacts[name] = kind(folder / name)
        return SimpleNamespace(**artifacts)

    def with_parameters(self, changes: Mapping[str, Any]) -> None:
        """Change parameters, given as Python values or as strings from a command line.

        A key may name an entry of a dict: `hyperparameters.units`. The name of an input connects an existing artifact
        by its path: `initial` of a ModelBuilder.

        Raises:
            ParameterError: unknown name (the message suggests the closest one) or invalid value.
        """
        spec = type(self).spec()
        known = spec.parameters
        values = self.parameters
        for key, value in changes.items():
            name, _, inner = key.partition(".")
            if key in spec.inputs and key not in known:
                self.inputs[key] = self._connect(key, spec.inputs[key].type, self._artifact_at(key, value))
                continue
            if name not in known:
                raise ParameterError(f"{self.name}.{key}: no such parameter; {nearest(name, [*known, *spec.inputs])}")
            if inner:
                value = {**(values[name] or {}), inner: json_or_text(value)}
            values[name] = check_parameter(f"{self.name}.{name}", known[name], value)
        self._set(values)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"

    def _artifact_at(self, name: str, path: Any) -> Artifact:
        kind = type(self).spec().inputs[name].type
        if not isinstance(kind, type) or type(self).spec().inputs[name].by_name:
            raise ParameterError(f"{self.name}.{name}: this input is not one artifact; connect it in the pipeline")
        if not isinstance(path, (str, Path)) or not Path(path).exists():
            raise ParameterError(f"{self.name}.{name}: expected the path of a {kind.__name__}, received {path!r}")
        return kind(Path(path).absolute())

    def _existing(self, files: Sequence[str | Path]) -> list[Path]:
        if isinstance(files, (str, Path)):
            raise ParameterError(f"{self.name}.files: expected a list of paths, received {str(files)!r}")
        paths = [Path(file).absolute() for file in files]
        for path in paths:
            if not path.exists():
                raise ParameterError(f"{self.name}.files: {path} does not exist; correct the path or create the file")
        return paths

    def _bind(self, spec: Spec, arguments: Sequence[Any], named: dict[str, Any]) -> dict[str, Any]:
        order = [*spec.inputs, *spec.parameters]
        if len(arguments) > len(order):
            raise WiringError(
                f"{self.name}: {len(arguments)} positional arguments received, "
                f"expected at most {len(order)} ({', '.join(order)})"
            )
        given = dict(zip(order, arguments))
        for key, value in named.items():
            if key in given:
                raise WiringError(f"{self.name}.{key}: received twice, by position and by name")
            if key not in order:
                raise WiringError(f"{self.name}.{key}: no such input or parameter; {nearest(key, order)}")
            given[key] = value
        return given

    def _connect_by_name(
        self, name: str, expected: type[Artifact], value: Any
    ) -> dict[str, Channel | Artifact | LastBlessed]:
        if value is not None and not isinstance(value, Mapping):
            raise WiringError(
                f"{self.name}.{name}: expected a dict of {_type_name(expected)} by name, received "
                f"{type(value).__name__}"
            )
        return {f"{name}.{key}": self._connect(f"{name}.{key}", expected, one) for key, one in (value or {}).items()}

    def _connect(self, name: str, expected: type[Artifact], value: Any) -> Channel | Artifact | LastBlessed:
        if isinstance(value, LastBlessed):
            return self._connect_earlier(name, expected, value)
        if isinstance(value, Component):
            matching = [c for c in value.outputs.values() if issubclass(c.type, expected)]
            if len(matching) == 1:
                return matching[0]
            offered = ", ".join(str(c) for c in value.outputs.values()) or "none"
            problem = "several outputs match" if matching else "no output matches"
            raise WiringError(
                f"{self.name}.{name}: expected {_type_name(expected)}, {problem}: "
                f"the outputs of {value.name} are {offered}"
            )
        if isinstance(value, (Channel, Artifact)):
            received = value.type if isinstance(value, Channel) else type(value)
            if issubclass(received, expected):
                return value
            raise WiringError(f"{self.name}.{name}: expected {_type_name(expected)}, received {value}")
        raise WiringError(
            f"{self.name}.{name}: expected {_type_name(expected)} (a component, one of its outputs or an "
            f"artifact), received {type(value).__name__}"
        )

    def _connect_earlier(self, name: str, expected: type[Artifact], value: LastBlessed) -> LastBlessed:
        known = type(self).spec().inputs
        if name not in known:
            raise WiringError(f"{self.name}.{name}: expected {_type_name(expected)}, received {value}")
        if value.input not in known or value.input == name:
            others = [other for other in known if other != name]
            raise WiringError(
                f"{self.name}.{name}: {value} does not name another input; {nearest(value.input, others)}"
            )
        received = known[value.input].type
        if not known[name].optional or not issubclass(received, expected):
            raise WiringError(
                f"{self.name}.{name}: expected {expected.__name__}, but {value} is {received.__name__} or None"
            )
        return value


def _type_name(kind: type) -> str:
    """Return the name of a class, or those of a union."""
    return " or ".join(one.__name__ for one in typing.get_args(kind) or (kind,))


def component(function: Callable[..., Any]) -> type[Component]:
    """Turn a function into a component class.

    Arguments annotated `Input[...]` and `Output[...]` receive artifacts. All others are parameters. The function may
    return metrics::

        @component
        def RowCount(examples: Input[Examples], report: Output[Report], split: str = "train"):
            ...

    Raises:
        WiringError: an argument has no annotation.
    """
    annotations: dict[str, Any] = {}
    defaults: dict[str, Any] = {}
    for name, argument in inspect.signature(function, eval_str=True).parameters.items():
        if argument.annotation is argument.empty:
            raise WiringError(f"{function.__name__}: argument {name!r} has no type annotation")
        hint = argument.annotation
        declared = _marker(hint) is not None
        annotations[name] = hint if declared else typing.Annotated[(hint, _PARAMETER)]
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
    """Return the first paragraph of the docstring of the component's class, or an empty string."""
    paragraph = inspect.cleandoc(type(node).__doc__ or "").partition("\n\n")[0]
    return " ".join(paragraph.replace("`", "").split())


def _declarations(cls: type) -> Iterator[tuple[str, str, Any]]:
    """Yield the name, the kind of declaration and the inner type of each declaring annotation."""
    for name, hint in typing.get_type_hints(cls, include_extras=True).items():
        kind = _marker(hint)
        if kind is not None:
            inner, *others = typing.get_args(hint)
            if kind is _INPUT:  # `Input[T]` is `T | None`
                (inner,) = (part for part in typing.get_args(inner) if part is not types.NoneType)
            bounds = [one for one in others if one is not kind]
            yield name, kind, typing.Annotated[(inner, *bounds)] if bounds else inner


def _marker(hint: Any) -> str | None:
    """Return the kind of declaration of an annotation, or None if it is an ordinary one."""
    markers = (_INPUT, _OUTPUT, _PARAMETER, _PARAMETERS)
    if typing.get_origin(hint) is not typing.Annotated:
        return None
    return next((one for one in hint.__metadata__ if any(one is marker for marker in markers)), None)
