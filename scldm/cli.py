"""The command line: parse, run the command, and say in one sentence what a user can mend."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from scldm.commands import COMMANDS, command
from scldm.commands.parser import parse
from scldm.commands.terminal import harmless_output
from scldm.errors import LONGEST_MESSAGE, UserError, nearest_names, printable
from scldm.locks import output_lock

__all__ = ["main"]

USAGE = """usage: scldm COMMAND [OPTIONS]

A latent diffusion model that generates single-cell gene expression counts.

commands (scldm COMMAND --help tells more):
{commands}
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; exit status 2 and one sentence for anything the user can mend."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character shows its escape, and a finished training does not end in an error.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    with warnings.catch_warnings():
        # A warning is a message to the user here, not a line of our source, and one to developers is none.
        warnings.simplefilter("default", UserWarning)
        for kind in (FutureWarning, DeprecationWarning, PendingDeprecationWarning):
            warnings.simplefilter("ignore", kind)
        warnings.showwarning = lambda message, *_: _warn(message)
        try:
            chosen = _parse(arguments)
            with _only_writer(chosen, arguments[0]), harmless_output():
                chosen.run()
        except UserError as error:
            _fail(error)
        except BrokenPipeError:
            # The reader (head, less) has seen enough.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except KeyboardInterrupt as error:
            print("scldm: interrupted.", file=sys.stderr)
            sys.exit(128 + getattr(error, "signal_number", signal.SIGINT))
        except OSError as error:
            # A full disk, a directory that may not be written: the operating system says what.
            _fail(f"'{error.filename}': {error.strerror}" if error.filename and error.strerror else error)
        except (MemoryError, RuntimeError) as error:
            if not isinstance(error, MemoryError) and not _is_out_of_memory(str(error)):
                raise
            _fail("there is not enough memory for this; ask for fewer cells or genes, or a smaller batch size")


def _only_writer(chosen: Any, name: str) -> contextlib.AbstractContextManager[None]:
    """Keep others from writing to the output of a command; ``train`` does so itself, once it knows its output."""
    output = getattr(chosen, "output", None)
    # Processes that work together share an output, and the first of them writes.
    if name == "train" or output is None or os.environ.get("RANK", "0") != "0":
        return contextlib.nullcontext()
    return output_lock(output, name)


def _warn(message: object) -> None:
    # Processes that work together would all say the same.
    if os.environ.get("RANK", "0") == "0":
        print(f"scldm: warning: {_sentence(message)}", file=sys.stderr)


def _fail(message: object) -> None:
    print(f"scldm: error: {_sentence(message)}", file=sys.stderr)
    sys.exit(2)


def _sentence(message: object) -> str:
    text = printable(" ".join(str(message).split()), LONGEST_MESSAGE)
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?", "!")) else ".")


def _is_out_of_memory(message: str) -> bool:
    return "out of memory" in message or "can't allocate memory" in message


def _parse(arguments: list[str]) -> Any:
    if not arguments or arguments[0] in ("-h", "--help"):
        width = max(map(len, COMMANDS))
        listing = "\n".join(f"  {name:{width}}  {_summary(command(name))}" for name in COMMANDS)
        print(USAGE.format(commands=listing), file=sys.stdout if arguments else sys.stderr)
        sys.exit(0 if arguments else 2)
    name, rest = arguments[0], arguments[1:]
    if name == "--version":
        from scldm.version import __version__

        print(f"scldm {__version__}")
        sys.exit(0)
    if name not in COMMANDS:
        raise UserError(f"there is no command '{name}'; {nearest_names(name, COMMANDS)}")
    kind, prog = command(name), f"scldm {name}"
    if hasattr(kind, "from_arguments"):
        return kind.from_arguments(rest, prog=prog)
    return parse(kind, rest, prog=prog)


def _summary(kind: type[Any]) -> str:
    return str(kind.__doc__).strip().splitlines()[0].split(";")[0].rstrip(".")


if __name__ == "__main__":
    main()
