"""Command lines of the run-* commands: own options, docker's options, and what is left.

Rules, as users of these commands know them: `--option value` and `--option=value` are the same;
long names are read in any case; a value that begins with `-` counts as missing; everything after
`--` goes to the node's program, and so does what nobody knows.

Containers beside the node's are *sidecars*: `--sidecar NAME` declares one, and options that begin
with `--NAME-` belong to it. `run-sl` has one without declaration: `ml`, the user's program.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from swarm.launch.docker_options import DockerOptions

SIDECAR_VALUES = ("image", "cmd")  # of a sidecar, besides docker's options
SIDECAR_FLAGS = ("pid-main", "volumes-from-main")
_SIDECAR_NAME = re.compile(r"[a-z][a-z0-9_-]{0,30}")


class UsageError(Exception):
    """A command line that cannot be executed; the text is shown behind the command's name."""


@dataclass(frozen=True)
class Option:
    """An option of our own. The first name is the one under which its value is found."""

    names: tuple[str, ...]
    help: str
    takes_value: bool = True

    @property
    def key(self) -> str:
        return self.names[0]


@dataclass
class Arguments:
    """A command line, taken apart. Docker's options have their long names, without dashes."""

    own: dict[str, str] = field(default_factory=dict)
    docker: list[tuple[str, str | None]] = field(default_factory=list)
    sidecars: dict[str, list[tuple[str, str | None]]] = field(default_factory=dict)
    rest: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    def flag(self, key: str) -> bool:
        """Is an own option without value switched on?"""
        return is_true(self.own.get(key, "false"), f"--{key}")


def parse(
    argv: Sequence[str],
    options: Iterable[Option],
    docker: DockerOptions,
    *,
    sidecars: Sequence[str] = (),
) -> Arguments:
    """Take `argv` (without the command's name) apart. Raises UsageError.

    `sidecars` are those that need no `--sidecar`; they are in the result when an option is theirs.
    """
    return _Parser(argv, options, docker, sidecars).run()


def is_true(text: str | None, option: str) -> bool:
    """The truth that a flag's value stands for; a flag without value is true."""
    if text is None or text.lower() in ("", "true", "1"):
        return True
    if text.lower() in ("false", "0"):
        return False
    raise UsageError(f"{option}: {text}: expected true or false")


def last(options: Sequence[tuple[str, str | None]], name: str) -> str | None:
    """The last value of an option, None when it is not there."""
    return next((value for key, value in reversed(options) if key == name), None)


def has(options: Sequence[tuple[str, str | None]], name: str) -> bool:
    return any(key == name for key, _ in options)


def flag(options: Sequence[tuple[str, str | None]], name: str, default: bool) -> bool:
    """Whether a flag among docker's options is on."""
    return is_true(last(options, name), f"--{name}") if has(options, name) else default


class _Parser:
    def __init__(
        self,
        argv: Sequence[str],
        options: Iterable[Option],
        docker: DockerOptions,
        sidecars: Sequence[str],
    ) -> None:
        self._words = list(argv)
        self._own: Mapping[str, Option] = {
            name: option for option in options for name in option.names
        }
        self._docker = docker
        self._sidecars = set(sidecars)
        self._found = Arguments()
        self._first_named: set[str] = set()

    def run(self) -> Arguments:
        self._declare_sidecars()
        while self._words:
            word = self._words.pop(0)
            if word == "--":
                self._found.rest += self._words
                break
            if word.startswith("--"):
                self._long(word)
            elif word == "-h" and "help" in self._own and self._nothing_follows():
                self._set_own(self._own["help"], "help", "true")  # else it is docker's hostname
            elif word.startswith("-") and len(word) > 1:
                self._short(word)
            else:
                self._found.rest.append(word)
        return self._found

    def _declare_sidecars(self) -> None:
        """Take `--sidecar NAME` out of the words: its options may come before it."""
        words, self._words = self._words, []
        while words:
            word = words.pop(0)
            if word == "--":
                self._words += [word, *words]
                return
            option, equals, name = word.partition("=")
            if option.lower() != "--sidecar":
                self._words.append(word)
                continue
            if not equals:
                name = words.pop(0) if words and not words[0].startswith("-") else ""
            name = name.lower()
            if not name:
                raise UsageError("--sidecar: missing argument")
            if not _SIDECAR_NAME.fullmatch(name):
                raise UsageError(f"--sidecar: {name}: bad name")
            self._sidecars.add(name)
            self._found.sidecars.setdefault(name, [])

    def _long(self, word: str) -> None:
        name, equals, text = word[2:].partition("=")
        name = name.lower()
        attached = text if equals else None
        if name in self._own:
            option = self._own[name]
            shown = f"--{name}"
            if option.takes_value:
                value = self._value(shown, attached)
                if not value:
                    raise UsageError(f"{shown}: missing argument")
            else:
                value = "true" if is_true(attached, shown) else "false"
            self._set_own(option, name, value)
        elif name in self._docker.takes_value:
            self._found.docker.append((name, self._docker_value(name, f"--{name}", attached)))
        elif (owner := self._owner(name)) is not None:
            self._sidecar_option(owner, word, name, attached)
        elif name.startswith("ml"):
            raise _unsupported(word)
        else:
            self._found.unknown.append(word)
            self._found.rest.append(word)

    def _set_own(self, option: Option, name: str, value: str) -> None:
        # Where an option has two names, the first and longer one wins, in any order.
        if name != option.key and option.key in self._first_named:
            return
        self._found.own[option.key] = value
        if name == option.key:
            self._first_named.add(name)

    def _owner(self, name: str) -> str | None:
        """Whose sidecar's an option is; the longest name counts where one begins with another."""
        fitting = [sidecar for sidecar in self._sidecars if name.startswith(f"{sidecar}-")]
        return max(fitting, key=len) if fitting else None

    def _sidecar_option(self, owner: str, word: str, name: str, attached: str | None) -> None:
        inner = name[len(owner) + 1 :]
        found = self._found.sidecars.setdefault(owner, [])
        shown = f"--{name}"
        if inner in SIDECAR_VALUES:
            found.append((inner, self._value(shown, attached)))
        elif inner in SIDECAR_FLAGS:
            found.append((inner, str(is_true(attached, shown)).lower()))
        elif inner in self._docker.takes_value:
            found.append((inner, self._docker_value(inner, shown, attached)))
        elif inner in self._docker.short:
            long = self._docker.short[inner]
            found.append((long, self._docker_value(long, shown, attached)))
        elif inner and attached is None and all(self._is_short_flag(letter) for letter in inner):
            found += [(self._docker.short[letter], None) for letter in inner]
        else:
            raise _unsupported(word)

    def _short(self, word: str) -> None:
        """`-d`, `-it`, `-e NAME=x`, `-eNAME=x`."""
        letters = word[1:]
        while letters:
            letter, letters = letters[0], letters[1:]
            if letter in self._own and not self._own[letter].takes_value:
                attached = letters[1:] if letters.startswith("=") else None
                truth = is_true(attached, f"-{letter}")
                self._set_own(self._own[letter], letter, "true" if truth else "false")
            elif letter in self._docker.short:
                long = self._docker.short[letter]
                attached = None
                if self._docker.takes_value[long]:
                    attached, letters = letters.removeprefix("=") or None, ""
                elif letters.startswith("="):
                    attached, letters = letters[1:], ""
                self._found.docker.append((long, self._docker_value(long, f"-{letter}", attached)))
                continue
            else:
                self._found.unknown.append(word)
                self._found.rest.append(word)
                return
            if attached is not None:
                return

    def _is_short_flag(self, letter: str) -> bool:
        long = self._docker.short.get(letter)
        return long is not None and not self._docker.takes_value[long]

    def _nothing_follows(self) -> bool:
        return not self._words or self._words[0].startswith("-")

    def _docker_value(self, name: str, shown: str, attached: str | None) -> str | None:
        return self._value(shown, attached) if self._docker.takes_value[name] else attached

    def _value(self, shown: str, attached: str | None) -> str:
        if attached is not None:
            return attached
        if self._nothing_follows():
            raise UsageError(f"{shown}: missing argument")
        return self._words.pop(0)


def _unsupported(word: str) -> UsageError:
    return UsageError(f"Error: {word.partition('=')[0]} is an unsupported option.")
