"""The command line: `lossfuncs COMMAND ...`, one module a command.

A module has `configure(parser)` and `run(args) -> exit status`, and imports what is slow inside `run`.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

# The module of each, and what it is for. A module called `list` would hide the builtin here.
COMMANDS = {
    "evaluate": ("evaluate", "losses and metrics of predictions in files of any size"),
    "bench": ("bench", "speed here, next to its peers' and to what the machine allows"),
    "list": ("catalogue", "every loss and metric, with the names that Keras has had for it"),
    "info": ("info", "what a loss or metric computes: formula, options, data, names"),
    "doctor": ("doctor", "what this installation runs on, and whether it works"),
    "warmup": ("warmup", "compile the usual kernels now rather than at their first use"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0, 1 for a finding, 2 for bad input, 130 for Ctrl-C, 141 for a closed pipe."""
    argv = sys.argv[1:] if argv is None else list(argv)
    command = "lossfuncs"
    try:
        try:
            args, unknown = _parser(argv).parse_known_args(argv)
            command = f"lossfuncs {args.command}"
            if unknown:
                raise ValueError(f"there is no {unknown[0]} here (see {command} --help)")
            status = int(args.run(args))
        except SystemExit as end:  # argparse has said what there is to say
            status = int(end.code or 0)
        if sys.stdout is not None:
            sys.stdout.flush()
        return status
    except BrokenPipeError:
        # what is still buffered must not fail once more at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt as stop:
        print(f"\n{command}: interrupted{f' {stop}' if str(stop) else ''}", file=sys.stderr)
        return 130
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(command, f"{where}{error.strerror or error}")
    except (ValueError, TypeError, ImportError) as error:
        return _fail(command, str(error))


def _fail(command: str, sentence: str) -> int:
    print(f"{command}: {sentence}", file=sys.stderr)
    return 2


class _Parser(argparse.ArgumentParser):
    """argparse's, but an error is one sentence."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    parser = _Parser(prog="lossfuncs", description="Keras' losses and metrics on arrays and files.", allow_abbrev=False)
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=_Parser)
    for name, (module_name, summary) in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".", allow_abbrev=False,
                                      formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
        if name in argv:
            module = importlib.import_module(f".{module_name}", __name__)
            module.configure(command)
            command.set_defaults(run=module.run, argv=argv)
    wanted = next((word for word in argv if not word.startswith("-")), None)
    if wanted is not None and wanted not in COMMANDS:
        close = difflib.get_close_matches(wanted, COMMANDS, 1)
        hint = f". Did you mean {close[0]!r}?" if close else f"; there are {', '.join(COMMANDS)}"
        parser.error(f"there is no command {wanted!r}{hint}")
    return parser


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from .. import __version__

        print(f"lossfuncs {__version__}")
        parser.exit()
