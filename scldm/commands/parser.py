"""From words of the command line to a command: tyro, with its boxed errors turned into sentences."""

from __future__ import annotations

import ast
import contextlib
import io
import re
import sys
from collections.abc import Sequence
from typing import Any

import tyro
from tyro.conf import FlagCreatePairsOff

from scldm.errors import UserError, nearest_names

__all__ = ["parse"]

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
    try:
        with contextlib.redirect_stderr(captured):
            return _tyro(kind, list(arguments), prog, default)
    except SystemExit as stop:
        if stop.code in (0, None):
            sys.stderr.write(captured.getvalue())
            raise
    except UserError as error:
        raise UserError(f"in the options: {error}") from None
    raise UserError(_sentence(captured.getvalue(), arguments, prog, _options(kind, prog, default)))


def _tyro(kind: type[Any], arguments: list[str], prog: str, default: Any) -> Any:
    given = {} if default is None else {"default": default}
    return tyro.cli(kind, args=arguments, prog=prog, config=(FlagCreatePairsOff,), **given)


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
        value = re.findall(r"'(.*?)'", body)[-1]
        return f"{found[1]} is '{value}'; it must be {KINDS.get(found[2], found[2])}"
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
