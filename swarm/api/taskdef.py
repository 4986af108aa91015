"""Task definitions: the YAML file that a user writes, and the body that travels on the ledger.

A file holds `Name`, `TaskType`, `Author`, `Prereq`, `Outcome` and `Body`; what may stand in the
body depends on the type. The ledger keeps the body as lines of YAML; `body_lines` makes them and
`parse_body` reads them again, at the operator that executes the task.

All values are texts, and stay as they are written: `MAX_EPOCHS: 010` or `FLAG: yes` reach the
user's program as `010` and `yes`. Only null has a meaning of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)
from pydantic import ValidationError as PydanticError
from pydantic_core import ErrorDetails

from swarm.errors import LocalError, RemoteError

MAX_FILE = 256 * 1024  # bytes; the ledger keeps at most 48 KiB of a body
MAX_PROBLEMS = 50  # told at a time
MAX_DEPTH = 16  # levels of YAML; a task needs five


def _scalar_as_text(value: Any) -> Any:
    """Numbers and truth values, as another writer's YAML may hold them, become text; null is ""."""
    if value is None:
        return ""
    if isinstance(value, (bool, int, float)):
        return str(value)
    return value


def _without_control_characters(text: str) -> str:
    """The ledger refuses them, and YAML would not bring all of them back."""
    if _CONTROL.search(text):
        raise ValueError("should hold no control characters")
    return text


# Control characters other than tabs and line ends, line separators, marks that change the direction
# of writing, and halves of surrogate pairs.
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069"
    "\ud800-\udfff\ufeff]"
)
_WORD = r"^\S+$"
_NAME = r"^[A-Za-z0-9_][A-Za-z0-9_.:@+=~-]*$"
_VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"
# As engines take them: a tag or a digest; a path of lower-case names; a registry with its port.
_TAG = r"^([A-Za-z0-9_][A-Za-z0-9_.-]{0,127}|sha256:[0-9a-f]{64})$"
_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_REPOSITORY = rf"^{_PART}(?:/{_PART})*$"
_HOST = r"[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*(?::[0-9]{1,5})?"
_REGISTRY = rf"^(?:{_HOST}|{_PART})(?:/{_PART})*/?$"
_PATTERNS = {
    _TAG: "should be a tag such as 2.16.1, or sha256: and 64 hex digits",
    _REPOSITORY: "should be the name of an image: lower-case letters, digits, . _ - and /",
    _REGISTRY: "should be a registry and an organisation, such as registry.example:5000/team",
    _WORD: "should hold no blanks",
    _NAME: "should consist of letters, digits and _.:@+=~- only",
    _VARIABLE: "should be the name of an environment variable",
}

# What engines take as a volume's name, with room for the number of a node.
VOLUME = r"[A-Za-z0-9][A-Za-z0-9_.-]{1,149}"

_PLAIN = AfterValidator(_without_control_characters)
Text = Annotated[str, _PLAIN]
Text160 = Annotated[str, StringConstraints(min_length=1, max_length=160), _PLAIN]
Path160 = Annotated[str, StringConstraints(min_length=2, max_length=160), _PLAIN]
Line160 = Annotated[str, StringConstraints(max_length=160), _PLAIN]
VolumeName = Annotated[str, StringConstraints(min_length=3, max_length=160), _PLAIN]
Word160 = Annotated[str, StringConstraints(min_length=1, max_length=160, pattern=_WORD), _PLAIN]
TaskName = Annotated[
    str,
    StringConstraints(min_length=1, max_length=160, pattern=_NAME),
]
VariableName = Annotated[str, StringConstraints(pattern=_VARIABLE)]
VariableValue = Annotated[Text, BeforeValidator(_scalar_as_text)]
Variable = Annotated[dict[VariableName, VariableValue], Field(min_length=1, max_length=1)]
Option = dict[str, VariableValue] | Text


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class MakeUserContainer(_Model):
    """Build the image of the user's program on each operator's host."""

    BuildContext: VolumeName | None
    BuildType: Literal["INLINE", "REMOTE"]
    BuildSteps: Annotated[list[Line160], Field(min_length=1, max_length=80)]


class SharedMount(_Model):
    """A directory or volume that all learners of a host see."""

    Src: Text160
    Tgt: Text160
    MType: Literal["BIND", "VOLUME"]


class RunSwarm(_Model):
    """Train: one pair of learner and user program for each node of the operators' profiles."""

    Command: Text160
    Entrypoint: Text160
    WorkingDir: Path160
    Envvars: list[Variable] | None
    PrivateContent: Text160 | None
    SharedContent: Annotated[list[SharedMount], Field(min_length=1, max_length=10)] | None

    def environment(self) -> dict[str, str]:
        """Variables in one mapping; a later entry wins over an earlier one."""
        return {name: value for entry in self.Envvars or () for name, value in entry.items()}


class RegistryLogin(_Model):
    """User name and password at an image registry. They stand on the ledger, for all to read."""

    Username: Text160
    Password: Text160


class PullImage(_Model):
    """Get an image from a registry."""

    Tag: Annotated[str, StringConstraints(max_length=160, pattern=_TAG)]
    RepoName: Annotated[str, StringConstraints(max_length=160, pattern=_REPOSITORY)]
    OrgAndReg: Annotated[str, StringConstraints(max_length=160, pattern=_REGISTRY)]
    Auth: Text160 | RegistryLogin | None

    @property
    def repository(self) -> str:
        """Registry, organisation and name, as an engine wants them."""
        return f"{self.OrgAndReg.rstrip('/')}/{self.RepoName}"


def _option(option: dict[str, str] | str) -> tuple[str, str]:
    """Key and value of `Out: path` or `Sha256: digest`, a mapping or one text, in any case."""
    if isinstance(option, str):
        key, found, value = option.partition("=" if "=" in option.partition(":")[0] else ":")
        entries = {key: value} if found else {}
    else:
        entries = option
    if len(entries) == 1:
        [(key, value)] = entries.items()
        key, value = key.strip().lower(), value.strip()
        if key == "out" and value and ".." not in value.split("/"):
            return key, value
        if key == "sha256" and re.fullmatch("[0-9a-fA-F]{64}", value):
            return key, value.lower()
    raise ValueError(
        "should be `Out: path` with a path inside the volume, or `Sha256:` with 64 hex digits"
    )


def _known_option(option: dict[str, str] | str) -> dict[str, str] | str:
    """It stays as it was written."""
    _option(option)
    return option


class ContentOperation(_Model):
    """One step of filling a volume."""

    Operation: Literal["DOWNLOAD", "EXTRACT"]
    Target: Text160
    Options: list[Annotated[Option, AfterValidator(_known_option)]] | None

    @model_validator(mode="after")
    def _target_can_be_had(self) -> ContentOperation:
        scheme, found, rest = self.Target.partition("://")
        if found:
            if scheme.lower() not in ("http", "https", "file") or not rest:
                raise ValueError("its Target should begin with http://, https:// or file://")
            if "@" in rest.partition("/")[0]:
                raise ValueError("its Target should hold no user name: all members can read a task")
        elif self.Operation == "DOWNLOAD":
            raise ValueError("its Target should begin with http://, https:// or file://")
        elif ".." in self.Target.split("/"):
            raise ValueError("its Target should be an address, or a path inside the volume")
        if not found and "sha256" in self.options():
            raise ValueError("Sha256 belongs to the step that fetches the file")
        return self

    def options(self) -> dict[str, str]:
        """The options `out` and `sha256`, as far as they are given; a later one wins."""
        return dict(map(_option, self.Options or ()))


class MakeSwarmUserContent(_Model):
    """Make a volume and fill it: one for builds, or one for each learner."""

    ContentType: Literal["BUILDCONTENT", "SWARMCONTENT"]
    OpsList: Annotated[list[ContentOperation], Field(min_length=1, max_length=20)]


Body = RunSwarm | MakeUserContainer | PullImage | MakeSwarmUserContent
TaskType = Literal["RUN_SWARM", "MAKE_USER_CONTAINER", "PULL_IMAGE", "MAKE_SWARM_USER_CONTENT"]

BODIES: dict[str, type[RunSwarm | MakeUserContainer | PullImage | MakeSwarmUserContent]] = {
    "RUN_SWARM": RunSwarm,
    "MAKE_USER_CONTAINER": MakeUserContainer,
    "PULL_IMAGE": PullImage,
    "MAKE_SWARM_USER_CONTENT": MakeSwarmUserContent,
}


class TaskDefinition(_Model):
    """A whole task definition."""

    Name: TaskName
    TaskType: TaskType
    Author: Text160
    Prereq: TaskName
    Outcome: Word160
    Body: Body

    def body_lines(self) -> list[str]:
        """The body as lines of YAML, as the ledger keeps it."""
        text: str = yaml.safe_dump(
            self.Body.model_dump(), sort_keys=False, allow_unicode=True, width=1 << 30
        )
        return text.rstrip("\n").split("\n")


class TaskDefinitionError(LocalError):
    """A task file is wrong. `problems`: one line per mistake, with file, line, key, expectation."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("SW8010", "; ".join(problems))
        self.problems = tuple(problems)


def load_task(path: Path, shown: str = "") -> TaskDefinition:
    """Read and validate a task file. `shown` is the name that the user knows it by.

    Raises TaskDefinitionError.
    """
    shown = shown or str(path)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except OSError as fault:
        raise TaskDefinitionError([f"{shown}: cannot be read ({fault.strerror})"]) from fault
    if len(data) > MAX_FILE:
        raise TaskDefinitionError([f"{shown}: is larger than {MAX_FILE} bytes"])
    try:
        return parse_task(data.decode("utf-8"), shown)
    except UnicodeDecodeError as fault:
        raise TaskDefinitionError([f"{shown}: is not UTF-8 text ({fault.reason})"]) from fault


def parse_task(text: str, shown: str) -> TaskDefinition:
    """Validate the text of a task file. Raises TaskDefinitionError."""
    try:
        document = _Document(text)
        value = document.value
        if not isinstance(value, dict):
            raise _Problems(
                [(1, "", "a mapping with Name, TaskType, Author, Prereq, Outcome, Body")]
            )
        kind = value.get("TaskType")
        body_model = BODIES.get(kind) if isinstance(kind, str) else None
        problems: list[_Problem] = []
        if body_model is not None and "Body" in value:
            problems += document.problems(body_model, value["Body"], ("Body",))
        probe = {**value, "Body": _ANY_BODY} if "Body" in value else value
        problems += document.problems(TaskDefinition, probe, ())
        if kind == "MAKE_SWARM_USER_CONTENT":
            problems += document.volume_problems(value.get("Outcome"))
        if problems:
            raise _Problems(sorted(problems))
        assert body_model is not None, "an unknown type is a problem found above"
        body = body_model.model_validate(value["Body"])
        return TaskDefinition.model_validate({**value, "Body": body})
    except _Problems as found:
        raise TaskDefinitionError([f"{shown}:{p[0]}: {_sentence(p)}" for p in found.list]) from None


def parse_body(task_type: str, lines: Sequence[str], task: str) -> Body:
    """Read the body of a task from the ledger; `task` is its name, for the message.

    Raises RemoteError SW8010: whoever registered the task made the mistake.
    """
    model = BODIES.get(task_type)
    if model is None:
        raise RemoteError("SW8010", f"task {task} has the unknown type {task_type!r}")
    try:
        document = _Document("\n".join(lines))
        problems = document.problems(model, document.value, ())
        if problems:
            raise _Problems(sorted(problems))
        return model.model_validate(document.value)
    except _Problems as found:
        text = "; ".join(f"line {p[0]}: {_sentence(p)}" for p in found.list)
        raise RemoteError("SW8010", f"body of task {task}: {text}") from None


# Stands in for a body that is checked apart, against the model of its type.
_ANY_BODY = MakeUserContainer(BuildContext=None, BuildType="INLINE", BuildSteps=["FROM scratch"])

_Problem = tuple[int, str, str]  # line, key path, what was expected


class _Problems(Exception):
    def __init__(self, found: list[_Problem]) -> None:
        super().__init__(found)
        self.list = found


class _TextLoader(yaml.SafeLoader):
    """Leaves every plain scalar the text that was written, except null; knows no explicit tags."""


_TextLoader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag == "tag:yaml.org,2002:null"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_TextLoader.yaml_constructors = {
    tag: constructor
    for tag, constructor in yaml.SafeLoader.yaml_constructors.items()
    if tag is None or tag.rpartition(":")[2] in ("null", "str", "seq", "map")
}


class _Document:
    """A parsed YAML text that still knows on which line each key stands."""

    def __init__(self, text: str) -> None:
        loader: _TextLoader | None = None
        try:
            _refuse_depth_and_aliases(text)
            loader = _TextLoader(text)
            self._root = loader.get_single_node()
            _refuse_repeated_keys(self._root)
            self.value: Any = None if self._root is None else loader.construct_document(self._root)
        except yaml.MarkedYAMLError as fault:
            mark = fault.problem_mark or fault.context_mark
            said = ", ".join(part for part in (fault.context, fault.problem) if part)
            raise _Problems(
                [((mark.line if mark else 0) + 1, "", f"valid YAML ({said})")]
            ) from fault
        except yaml.YAMLError as fault:
            raise _Problems([(1, "", f"valid YAML ({fault})")]) from fault
        finally:
            if loader is not None:
                loader.dispose()

    def problems(self, model: type[BaseModel], value: Any, at: tuple[str, ...]) -> list[_Problem]:
        """What is wrong with the value, which stands at the path `at` of this document."""
        try:
            model.model_validate(value)
        except PydanticError as fault:
            return list(self._explain(fault.errors(include_url=False), at))
        return []

    def volume_problems(self, outcome: Any) -> list[_Problem]:
        """The outcome of a content task names volumes."""
        if not isinstance(outcome, str) or not outcome or re.fullmatch(VOLUME, outcome):
            return []
        line, path = self._locate(("Outcome",), missing=False)
        expected = "should name a volume: 2 to 150 letters, digits and _.-, a letter or digit first"
        return [(line, path, expected)]

    def _explain(self, errors: Sequence[ErrorDetails], at: tuple[str, ...]) -> Iterator[_Problem]:
        for error in errors[:MAX_PROBLEMS]:
            kind, said = error["type"], error["msg"]
            line, path = self._locate((*at, *error["loc"]), missing=kind == "missing")
            if kind == "missing":
                expected = "is missing"
            elif kind == "extra_forbidden":
                expected = "is not a known key here"
            elif kind == "string_pattern_mismatch":
                expected = _PATTERNS[error["ctx"]["pattern"]]
            elif kind == "string_type" and isinstance(error["input"], dict):
                expected = 'should be text; put it in quotes, as YAML reads "a: b" as a mapping'
            else:
                said = said.removeprefix("Value error, ")
                expected = said[:1].lower() + said[1:]
            yield line, path, expected

    def _locate(self, location: Sequence[int | str], *, missing: bool) -> tuple[int, str]:
        """Line and key path of an error's location; parts that are no keys are left out.

        A missing key is named all the same, with the line of the mapping that lacks it.
        """
        node: Any = self._root
        line, path = 1, ""
        for position, part in enumerate(location):
            if isinstance(node, yaml.SequenceNode) and isinstance(part, int):
                node = node.value[part]
                path += f"[{part}]"
                line = node.start_mark.line + 1
            elif isinstance(node, yaml.MappingNode):
                found = next((pair for pair in node.value if pair[0].value == part), None)
                if found is not None:
                    line, node = found[0].start_mark.line + 1, found[1]
                if found is not None or (missing and position == len(location) - 1):
                    path += f".{part}"
        return line, path.lstrip(".")


def _refuse_depth_and_aliases(text: str) -> None:
    """Look at the events alone, which costs little, before nodes are built from them."""
    depth = 0
    for event in yaml.parse(text, Loader=_TextLoader):
        if isinstance(event, yaml.AliasEvent):
            raise _Problems([(_line(event), "", "values, not aliases of others")])
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise _Problems([(_line(event), "", f"{MAX_DEPTH} levels at most")])
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1


def _refuse_repeated_keys(node: Any) -> None:
    """YAML forbids them, and PyYAML silently takes the last."""
    if not isinstance(node, yaml.CollectionNode):
        return
    children = node.value
    if isinstance(node, yaml.MappingNode):
        keys: set[str] = set()
        for key, _ in node.value:
            if str(key.value) in keys:
                raise _Problems([(key.start_mark.line + 1, str(key.value), "is given twice")])
            keys.add(str(key.value))
        children = [value for _, value in node.value]
    for child in children:
        _refuse_repeated_keys(child)


def _sentence(problem: _Problem) -> str:
    _, path, expected = problem
    return f"{path}: {expected}" if path else f"expected {expected}"
