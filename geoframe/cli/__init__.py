"""The command line. Each command has a module of its own here.

Exit status: 0 done; 2 bad input, told in one line; 1 any other failure, told in one line that says how to see
more, also when a part of a batch failed. Nothing slow is imported before a command needs it.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import io
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from geoframe.cli import embed, features, frame, keypoints, landmarks, reconstruct
from geoframe.cli._common import PartFailed
from geoframe.cli._words import as_typed, of_parser
from geoframe.cli.annotate import annotate
from geoframe.cli.canonical import canonical
from geoframe.cli.compile import compile_loops
from geoframe.cli.info import info
from geoframe.cli.match import match
from geoframe.cli.match_all import match_all
from geoframe.cli.match_images import match_images
from geoframe.cli.render import render

_BAD_INPUT = (
    ValueError,
    ImportError,
    FileNotFoundError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
)

# The name of a command is one word or two.
COMMANDS: dict[str, Callable[..., None]] = {
    "info": info,
    "compile": compile_loops,
    "canonical": canonical,
    "match": match,
    "match-all": match_all,
    "render": render,
    "match-images": match_images,
    "features train": features.train,
    "features predict": features.predict,
    "features evaluate": features.evaluate,
    "keypoints train": keypoints.train,
    "keypoints predict": keypoints.predict,
    "keypoints evaluate": keypoints.evaluate,
    "keypoints register": keypoints.register,
    "embed annotate": annotate,
    "embed train": embed.train,
    "embed predict": embed.predict,
    "embed evaluate": embed.evaluate,
    "embed export": embed.export,
    "reconstruct train": reconstruct.train,
    "reconstruct predict": reconstruct.predict,
    "reconstruct evaluate": reconstruct.evaluate,
    "landmarks train": landmarks.train,
    "landmarks predict": landmarks.predict,
    "landmarks evaluate": landmarks.evaluate,
    "frame train": frame.train,
    "frame predict": landmarks.predict,
    "frame evaluate": landmarks.evaluate,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line with `argv` (default: the process's own) and return the exit status."""
    atexit.register(gc.freeze)  # no search for cycles among a million objects at the end: half a second
    try:
        status = _run(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # whoever reads, such as head, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _run(words: list[str]) -> int:
    debug = "--debug" in words
    words = [w for w in words if w != "--debug"]
    if not words or words[0] in ("-h", "--help"):
        print(_help(COMMANDS))
        return 0 if words else 2
    if words[0] == "--version":
        from geoframe import __version__

        print(__version__)
        return 0
    name = " ".join(words[:2]) if " ".join(words[:2]) in COMMANDS else words[0]
    if name not in COMMANDS:
        known = [c for c in COMMANDS if c.split()[0] == name] or COMMANDS
        if known is not COMMANDS and words[1:2] in (["-h"], ["--help"]):
            print(_help({c: COMMANDS[c] for c in known}))
            return 0
        wanted = " ".join(words[: 1 if known is COMMANDS else 2])
        return _complain("geoframe", f"unknown command {wanted!r}; expected one of {', '.join(known)}", 2)
    program = f"geoframe {name}"
    try:
        command = _parse(COMMANDS[name], program, words[len(name.split()) :])
        if isinstance(command, int):
            return command
        command()
        return 0
    except KeyboardInterrupt:
        return _complain(program, "interrupted", 130)
    except BrokenPipeError:
        raise
    except PartFailed as err:
        return _complain(program, str(err), 1)
    except Exception as err:
        if debug:
            raise
        if _is_bad_input(err):
            return _complain(program, as_typed(str(err), COMMANDS[name]), 2)
        return _complain(program, f"failed with {type(err).__name__}: {err}; add --debug to see where", 1)


def _help(commands: Mapping[str, Callable[..., None]]) -> str:
    import geoframe

    lines = [
        "usage: geoframe COMMAND [OPTIONS]",
        "",
        (geoframe.__doc__ or "").split("\n")[0],
        "",
        "commands:",
    ]
    width = max(map(len, commands))
    for name, command in commands.items():
        lines.append(f"  {name:{width}s} {(command.__doc__ or '').splitlines()[0]}")
    lines += ["", "geoframe COMMAND --help tells more; --debug shows where a failure comes from; --version."]
    return "\n".join(lines)


def _complain(program: str, message: str, status: int) -> int:
    print(f"{program}: {' '.join(message.split())}", file=sys.stderr)
    return status


def _is_bad_input(err: Exception) -> bool:
    if not isinstance(err, _BAD_INPUT):
        return False
    from numpy.linalg import LinAlgError

    return not isinstance(err, LinAlgError)  # a ValueError by inheritance, but no fault of the input's


def _parse(command: Callable[..., None], program: str, words: list[str]) -> Callable[[], None] | int:
    """The command with its arguments bound, or the exit status if there is nothing to run.

    What the parser has to say against the words, a box of several lines, is squeezed into one.
    """
    import functools

    import tyro

    @functools.wraps(command)
    def bind(*args: Any, **kwargs: Any) -> Callable[[], None]:
        return functools.partial(command, *args, **kwargs)

    style = (tyro.conf.FlagCreatePairsOff, tyro.conf.PositionalMetavarFromFieldName)
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(bind, prog=program, args=words, config=style)  # type: ignore[return-value]
    except SystemExit as stop:
        if not stop.code:
            return 0
        lines = [
            line.strip("│╰╯|+ ") for line in complaint.getvalue().splitlines()[1:]
        ]  # less the box's title
        rules = [
            i for i, line in enumerate(lines) if i and line and not line.strip("─-")
        ]  # but for one under it
        lines = [line for line in lines[: rules[0] if rules else None] if line.strip("─-")]
        told = of_parser(" ".join(lines), command).rstrip(".")
        return _complain(program, f"{told}; see {program} --help", 2)
