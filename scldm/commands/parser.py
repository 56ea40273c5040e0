"""From words of the command line to a command: tyro, with its boxed errors turned into sentences."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import io
import os
import re
import sys
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tyro
from tyro.conf import FlagCreatePairsOff

from scldm.errors import UserError, nearest_names

__all__ = ["parse"]

#: Columns that any help fits in.
NARROWEST = 40
# What the parser, and Python in its errors, call a type; in words.
KINDS = {"int": "a whole number", "float": "a number"}


def parse(kind: type[Any], arguments: Sequence[str], *, prog: str, default: Any = None) -> Any:
    """Build a command from its arguments; prints the help and exits with status 0 where that is asked for.

    Parameters
    ----------
    kind
        Dataclass whose fields are the arguments.
    arguments
        Words behind the name of the command.
    prog
        Name of the command in the help.
    default
        Instance that gives the values of what is left out.

    Raises
    ------
    UserError
        For an option that does not exist, a value that it cannot take, or something that is missing.
    """
    captured = io.StringIO()
    hints = {prefix + word: hint for prefix, word, hint, _ in _fields(kind, default)}
    arguments = _merged(_without_idle_flags(arguments, _flags(kind, default)), hints)
    try:
        with contextlib.redirect_stderr(captured):
            return _tyro(kind, arguments, prog, default)
    except SystemExit as stop:
        if stop.code in (0, None):
            sys.stderr.write(captured.getvalue())
            raise
    except UserError as error:
        raise UserError(f"in the options: {error}") from None
    raise UserError(_sentence(captured.getvalue(), arguments, prog, _options(kind, prog, default)))


def _tyro(kind: type[Any], arguments: list[str], prog: str, default: Any) -> Any:
    given = {} if default is None else {"default": default}
    with _room_for_help():
        return tyro.cli(kind, args=arguments, prog=prog, config=(FlagCreatePairsOff,), **given)


@contextlib.contextmanager
def _room_for_help() -> Iterator[None]:
    """Have the help laid out for a terminal that has room for a word: in a column of one it never comes to an end."""
    said = os.environ.get("COLUMNS")
    if said is None or (said.isascii() and said.isdecimal() and len(said) < 5 and int(said) >= NARROWEST):
        yield
        return
    os.environ["COLUMNS"] = str(NARROWEST)
    try:
        yield
    finally:
        os.environ["COLUMNS"] = said


def _fields(kind: type[Any], default: Any, prefix: str = "--") -> Iterator[tuple[str, str, Any, Any]]:
    """Yield prefix, name, type and preset value of every option, those of the sections of a configuration included."""
    preset = {field.name: field.default for field in dataclasses.fields(kind)}
    for name, hint in typing.get_type_hints(kind, include_extras=True).items():
        named = {getattr(extra, "name", None) for extra in getattr(hint, "__metadata__", ())}
        bare = typing.get_args(hint)[0] if hasattr(hint, "__metadata__") else hint
        value = preset.get(name) if default is None else getattr(default, name)
        word = name.replace("_", "-")
        if dataclasses.is_dataclass(bare) and isinstance(bare, type):
            inner = value if isinstance(value, bare) else None
            yield from _fields(bare, inner, prefix if "" in named else f"{prefix}{word}.")
        else:
            yield prefix, word, bare, value


def _flags(kind: type[Any], default: Any) -> dict[str, tuple[str, bool, bool]]:
    """Name every flag and its opposite: what it sets, to what, and what that is if neither is given."""
    found: dict[str, tuple[str, bool, bool]] = {}
    for prefix, word, hint, value in _fields(kind, default):
        if hint is bool and isinstance(value, bool):
            option = prefix + word
            found |= {option: (option, True, value), f"{prefix}no-{word}": (option, False, value)}
    return found


def _without_idle_flags(arguments: Sequence[str], flags: Mapping[str, tuple[str, bool, bool]]) -> list[str]:
    """Leave out flags that ask for what is so anyway, which the parser does not know; refuse opposites."""
    kept: list[str] = []
    asked: dict[str, bool] = {}
    for word in arguments:
        option, value, is_so = flags.get(word.replace("_", "-"), ("", False, True))
        if asked.setdefault(option, value) != value:
            raise UserError(f"{option} and its opposite are both given")
        if value != is_so:
            kept.append(word)
    return kept


def _merged(arguments: Sequence[str], hints: Mapping[str, Any]) -> list[str]:
    """Put the values of an option that takes a list and is repeated together; refuse one that takes a single value."""
    groups: list[list[str]] = [[]]
    first: dict[str, list[str]] = {}
    for word in arguments:
        name, equals, value = word.partition("=")
        name = name.replace("_", "-")
        if not (word.startswith("--") and name in hints):
            groups[-1].append(word)
            if word.startswith("--"):
                groups.append([])
            continue
        is_list = typing.get_origin(hints[name]) is tuple and typing.get_args(hints[name])[-1] is Ellipsis
        is_list = is_list and typing.get_origin(typing.get_args(hints[name])[0]) is not tuple
        values = [value] if equals else []
        if name not in first or (typing.get_origin(hints[name]) is tuple and not is_list):
            first.setdefault(name, [])
            groups.append([name, *values])
            if is_list:
                first[name] = groups[-1]
        elif is_list:
            first[name].extend(values)
            groups.append(first[name])
        else:
            raise UserError(f"{name} is given twice; it can have one value only")
    unique: list[list[str]] = []
    for group in groups:
        if not any(group is other for other in unique):
            unique.append(group)
    return [word for group in unique for word in group]


def _options(kind: type[Any], prog: str, default: Any) -> list[str]:
    """Names of all options, read off the help."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        _tyro(kind, ["--help"], prog, default)
    return re.findall(r"^\W*?(?:-h, )?(--[a-z][\w.-]*)", text.getvalue(), flags=re.MULTILINE)


def _sentence(text: str, arguments: Sequence[str], prog: str, options: list[str]) -> str:
    for word in arguments:
        name = word.partition("=")[0].replace("_", "-")
        if word.startswith("--") and name not in options:
            return f"there is no option '{name}'; {nearest_names(name, options, n=2)}"
    lines = _body(text)
    body = " ".join(lines)
    if lines[0].startswith("Missing from"):
        missing = [m[0] for m in (re.match(r"--[\w.-]+|[A-Z][A-Z_]+\b", line) for line in lines[1:]) if m]
        return f"missing for {prog}: {' and '.join(missing)}; {prog} --help tells more"
    if found := re.match(r"Missing value for argument '(.*?)'", body):
        return f"{found[1]} needs a value; {prog} --help tells more"
    if found := re.match(r"invalid choice '(.*?)' for argument '(.*?)'\. Expected one of (\(.*\))", body):
        choices = [choice for choice in ast.literal_eval(found[3]) if choice != "None"]
        return f"{found[2]} is '{found[1]}'; {nearest_names(found[1], choices)}"
    if found := re.match(r"Error parsing (--\S+): no type matching \{None\}\|(\w+) .*? from \['(.*?)'\]", body):
        return f"{found[1]} is '{found[3]}'; it must be {KINDS.get(found[2].lower(), found[2])}"
    if found := re.match(
        r"Error parsing (--\S+): (?:invalid literal for|could not convert string to) (.*?)\W.*'", body
    ):
        # The box may have broken a long value into pieces.
        values = re.findall(r"'(.*?)'", body)
        said = f"{found[1]} is '{values[-1]}'; it" if values else found[1]
        return f"{said} must be {KINDS.get(found[2], found[2])}"
    if found := re.match(r"Error parsing config\.([\w-]+): (.*)", body):
        section, problem = found[1].replace("-", "_"), found[2]
        return f"in the options: {problem if problem.startswith(section) else f'{section}.{problem}'}"
    if found := re.match(r"Unrecognized options: (.*)", body):
        word = found[1].split(", ")[0]
        return f"'{word}' is one word too many: flags take no value, and a value with spaces needs quotes"
    return body


def _body(text: str) -> list[str]:
    """Lines between the title of the box and its first rule; what follows repeats the help."""
    lines = [line.strip("│| \t") for line in text.splitlines()]
    lines = [line for line in lines if line]
    rules = [i for i, line in enumerate(lines) if re.fullmatch(r"[╭╰+]?[-─]{5,}[╮╯+]?", line)]
    # The title is a line above a rule, or, drawn in Unicode, in the rule.
    start = rules[0] + 1 if rules and rules[0] == 1 else 1
    stop = next((i for i in rules if i >= start), len(lines))
    return lines[start:stop] or [" ".join(lines)]
