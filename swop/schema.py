"""`python -m swop.schema`: the profile's schema as text, from the models themselves."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from swop.profile import Profile

INTRODUCTION = """\
# The operator's profile: every key

A profile is a YAML file that says what one host offers to tasks: how programs are run, which
network node to talk to, and one entry under `nodes` for each pair of a learner (SL) and a user
program (ML). `run-swop --profile-file-name` names it. A mistake stops the operator with the file,
the line, the key, what was expected and what was found.

A star marks a key that must be there; its value may be null where the type says so. Environment
variables are lists of `NAME: value`; their values are kept as written, and null means empty. For
an SL, `slenvvars` override `envvars`; for an ML, `usrenvvars` override the task's `Envvars`. Above
both stands what wires a pair together: names, addresses, ports, identity, and the link between SL
and ML. Options (`slnetworkopts`, `usrnetworkopts`, `usrcontaineropts`) are a map, or a list of
`key: value` entries in which a key may be repeated.

A profile is refused as a whole, with all its mistakes: an unknown key, a missing one, a value that
does not fit, and keys that contradict each other. These must differ between the pairs: `idx`,
`slport`, the fixed addresses, and `slhostname` where `slhostip` is null. Identity attributes may
share a `tgt` only when they mount the same `src` there.

The SL sees its identity read-only; the ML sees none of it. `privatedata` is mounted where the
task's `PrivateContent` says, for this pair alone. Both run as the user that `run-swop --swop-uid`
names, so that is who owns what the ML writes; `privatedata` must let that user write.

With `mgrtype: PROCESS` there are no containers: mounts become links, and the paths in command and
environment are rewritten to them; `slport` is where the SL listens; `gpus` becomes
`CUDA_VISIBLE_DEVICES`. `network`, `dns`, host names, fixed addresses, labels and the other
container options mean nothing there, which the operator says when it starts.

This file is made from the program: `python -m swop.schema > profiles/SCHEMA.md`.
"""


def text() -> str:
    """The whole page."""
    lines = [INTRODUCTION, "| Key | Type | Meaning |", "|---|---|---|", *_rows(Profile, "")]
    return "\n".join(lines) + "\n"


def _rows(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, info in model.model_fields.items():
        alias = info.validation_alias
        path = prefix + (alias if isinstance(alias, str) else name)
        star = " *" if info.is_required() else ""
        below = _model_of(info.annotation)
        listed = "[]" if get_origin(_without_null(info.annotation)) is list else ""
        yield f"| `{path}{listed}`{star} | {_type(info)} | {info.description or ''} |"
        if below is not None:
            yield from _rows(below, f"{path}{listed}.")


def _without_null(annotation: Any) -> Any:
    if get_origin(annotation) is Annotated:
        return _without_null(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        rest = [item for item in get_args(annotation) if item is not NoneType]
        return _without_null(rest[0]) if len(rest) == 1 else annotation
    return annotation


def _model_of(annotation: Any) -> type[BaseModel] | None:
    """The model of a key that holds one, or a list of them."""
    plain = _without_null(annotation)
    if get_origin(plain) is list:
        plain = _without_null(get_args(plain)[0])
    return plain if isinstance(plain, type) and issubclass(plain, BaseModel) else None


def _type(info: FieldInfo) -> str:
    """The type in words, with its bounds."""
    words = _words(info.annotation)
    bounds = {type(item).__name__: item for item in info.metadata}
    if "Ge" in bounds and "Le" not in bounds:
        words += f" from {bounds['Ge'].ge}"
    return words


def _words(annotation: Any) -> str:
    if annotation is None or annotation is NoneType:
        return "null"
    if get_origin(annotation) is Annotated:
        return _annotated_words(annotation)
    if get_origin(annotation) in (Union, UnionType):
        return " or ".join(_words(item) for item in get_args(annotation))
    if get_origin(annotation) is list:
        return f"list of {_words(get_args(annotation)[0])}"
    if get_origin(annotation) is dict:
        return "list of `NAME: value`, or null"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return " or ".join(f"`{item.value}`" for item in annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "map"
    return {str: "text", int: "number", bool: "true or false"}.get(annotation, "value")


def _annotated_words(annotation: Any) -> str:
    plain, *metadata = get_args(annotation)
    if plain is int and metadata:
        low = [bound.ge for item in metadata for bound in item.metadata if hasattr(bound, "ge")]
        high = [bound.le for item in metadata for bound in item.metadata if hasattr(bound, "le")]
        if low and high:
            return f"{low[0]}–{high[0]}"
    return _words(plain)


if __name__ == "__main__":
    print(text(), end="")
