"""Run a command, and end with its exit code; an error is one line.

A command's module is imported when it runs, and this file needs only Python, so that help and version answer at once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from torchplastic import __version__
from torchplastic.cli import console
from torchplastic.cli.help import COMMANDS, examples, usage, wants_help


def run(arguments: Sequence[str] | None) -> NoReturn:
    """Run the command and exit with its code. arguments: None means those of this process, which ends with it."""
    args = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in args
    args = [argument for argument in args if argument != "--debug"]
    if debug and args[:1] == ["sweep"]:  # which passes it on to its processes
        args.append("--debug")
    try:
        console.prepare_streams(own=arguments is None)
        code = _call(args)
        sys.stdout.flush()
    except SystemExit as stop:  # the parser's help
        code = int(stop.code or 0)
    except KeyboardInterrupt:
        code = console.INTERRUPTED
    except BrokenPipeError:  # the reader of the output has closed it
        sys.stdout = None
        code = 1
    except Exception as error:
        code = _explain(error, debug)
    if arguments is None and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda number, frame: os._exit(code))  # the work is done
    raise SystemExit(code)


def _call(args: Sequence[str]) -> int:
    if not args or args[0] in ("-h", "--help"):
        print(usage())
        return 0 if args else 2
    name, *rest = args
    if name == "--version":
        print(f"torchplastic {__version__}")
        return 0
    if name not in COMMANDS:
        raise ValueError(_unknown(name))
    with console.ended_by_ctrl_c():
        command = import_module(f"torchplastic.cli.{COMMANDS[name].module}")
    if wants_help(rest):
        with contextlib.suppress(SystemExit):  # of the parser
            command.run(rest)
        print(examples(name))
        return 0
    with console.messages_shown():
        return int(command.run(rest))


def _unknown(name: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, COMMANDS, 1)
    meant = f"did you mean {near[0]}? The commands are" if near else "choose one of"
    return f"unknown command {name!r}; {meant} {', '.join(COMMANDS)}."


def _explain(error: Exception, debug: bool) -> int:
    """Print the error in one line -> the exit code: 2 for wrong use, otherwise 1."""
    if debug:
        import traceback

        traceback.print_exception(error)
    message, code = str(error) or type(error).__name__, 2 if isinstance(error, ValueError) else 1
    if isinstance(error, ModuleNotFoundError):
        extra = "cluster" if error.name == "ray" else "lab"
        message = f'{error.name} is not installed; this needs the extra {extra}: pip install "torchplastic[{extra}]"'
        code = 2
    print(f"plastic: error: {' '.join(message.split())}", file=sys.stderr)
    return code
