"""YAML with line numbers, for error messages that say where.

`load` returns plain values and, for every key path, the line on which it stands. Two departures
from `yaml.safe_load`, both because silent surprises cost users hours:

- a key that occurs twice in one mapping is an error, not "the last one wins";
- below a key whose name ends in `envvars`, scalars keep their text: `VERSION: 1.10` stays "1.10",
  and `no` stays "no". Environment variables are strings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

Path = tuple[str | int, ...]
MAX_CHARACTERS = 256 * 1024
MAX_DEPTH = 32
MAX_VALUES = 20_000
MAX_NUMBER = 40  # characters of what is taken for a number or a date


class YamlProblem(Exception):
    """Text that is no usable YAML; `line` counts from 1."""

    def __init__(self, line: int, text: str) -> None:
        super().__init__(f"line {line}: {text}")
        self.line = line
        self.text = text


@dataclass(frozen=True)
class Located:
    """A document's value, and the line of each key path in it."""

    value: Any
    lines: Mapping[Path, int]

    def line(self, path: Path) -> int:
        """Line of a path, or of its nearest ancestor that the document has."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def load(text: str) -> Located:
    """Parse one YAML document. Raises YamlProblem."""
    if len(text) > MAX_CHARACTERS:
        raise YamlProblem(1, f"more than {MAX_CHARACTERS} characters")
    try:
        _check_shape(text)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise YamlProblem(mark.line + 1 if mark else 1, error.problem or "not YAML") from error
    except yaml.YAMLError as error:
        raise YamlProblem(1, str(error).splitlines()[0]) from error
    lines: dict[Path, int] = {}
    return Located(_build(node, (), lines), lines)


def _check_shape(text: str) -> None:
    """Refuse deep nesting and many values by the events alone, before nodes are built from them."""
    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=yaml.SafeLoader)):
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            raise YamlProblem(line, f"nested more than {MAX_DEPTH} deep")
        if count > MAX_VALUES:
            raise YamlProblem(line, f"more than {MAX_VALUES} values")


def _build(node: Any, path: Path, lines: dict[Path, int]) -> Any:
    """Value of a node; enters the lines of everything below it."""
    if node is None:
        return None
    line = node.start_mark.line + 1
    lines.setdefault(path, line)
    # Once more: an alias stands for a copy, and copies of copies grow without bounds.
    if len(path) > MAX_DEPTH or len(lines) > MAX_VALUES:
        raise YamlProblem(line, "too many values, or too deep, once aliases are replaced")
    if isinstance(node, yaml.MappingNode):
        return _build_mapping(node, path, lines)
    if isinstance(node, yaml.SequenceNode):
        return [_build(item, (*path, i), lines) for i, item in enumerate(node.value)]
    if _is_environment(path) and node.tag != "tag:yaml.org,2002:null":
        return node.value
    shown = f"unusable value {node.value[:60]!r}"
    if node.tag != "tag:yaml.org,2002:str" and len(node.value) > MAX_NUMBER:
        raise YamlProblem(line, shown)
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_object(node)
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError) as error:
        # The last three: what PyYAML raises for `!!bool x`, `!!int ""` or `!!timestamp x`.
        raise YamlProblem(line, shown) from error
    finally:
        loader.dispose()


def _build_mapping(node: yaml.MappingNode, path: Path, lines: dict[Path, int]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise YamlProblem(line, "a key must be plain text")
        key = key_node.value
        if key in result:
            raise YamlProblem(line, f"key {key!r} occurs twice")
        below = (*path, key)
        lines[below] = line
        result[key] = _build(value_node, below, lines)
    return result


def _is_environment(path: Path) -> bool:
    return any(isinstance(part, str) and part.lower().endswith("envvars") for part in path)
