"""Complaints in the words that the user typed: the option's name, what is expected, what was found."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any, get_args, get_type_hints

_OPTION_OF = {"n_verts": "vertices", "n_points": "points", "n_keypoints": "keypoints", "n_jobs": "jobs"}
_KINDS = {int: "an integer", float: "a number", str: "a word", bool: "no value"}


def as_typed(message: str, command: Callable[..., Any]) -> str:
    """A complaint of the library with its argument called as the option of `command` is: "k: expected ..." becomes
    "--k: expected ...", "n_verts" is "--vertices"; other words stay."""
    options = _options(command)

    def rename(found: re.Match[str]) -> str:
        name = _OPTION_OF.get(found[2], found[2]).replace("_", "-")
        return f"{found[1]}--{name}: expected" if name in options else found[0]

    return re.sub(r"(^|: )([a-z][a-z_]*): expected", rename, message)


def of_parser(message: str, command: Callable[..., Any]) -> str:
    """A complaint of the parser of options as "--option: expected ..., found ...", where it is about a value."""
    value = re.search(r"parsing --([\w-]+):.*?(?:from \['|with base 10: '|to float: ')([^']*)'", message)
    choice = re.search(r"invalid choice '([^']*)' for argument '--([\w-]+)'", message)
    missing = re.search(r"Missing value for argument '(?:--)?([\w-]+)'", message)
    if "Missing from" in message:
        needed = (p for p in inspect.signature(command).parameters.values() if p.default is p.empty)
        names = [n for n in map(_shown, needed) if re.search(rf"(^|\s){n}\b", message)]
        return f"expected {', '.join(names)}, found none"
    if choice:
        return _expected(choice[2], command, repr(choice[1]))
    if value:
        return _expected(value[1], command, repr(value[2]))
    if missing:
        name = missing[1]
        return (
            _expected(name, command, "none")
            if name in _options(command)
            else f"expected {name.upper()}, found none"
        )
    return message


def _shown(parameter: inspect.Parameter) -> str:
    """A parameter of a command as its help shows it."""
    name = parameter.name.replace("_", "-")
    return f"--{name}" if parameter.kind is parameter.KEYWORD_ONLY else name.upper()


def _options(command: Callable[..., Any]) -> dict[str, Any]:
    """Names of the options of a command, as typed without the dashes, and their types."""
    hints = get_type_hints(command)
    parameters = inspect.signature(command).parameters.values()
    return {p.name.replace("_", "-"): hints[p.name] for p in parameters if p.kind is p.KEYWORD_ONLY}


def _expected(name: str, command: Callable[..., Any], found: str) -> str:
    """The complaint about an option, with what its type asks for."""
    kinds = [
        a for a in (get_args(_options(command)[name]) or (_options(command)[name],)) if a is not type(None)
    ]
    words = [w for kind in kinds for w in (get_args(kind) or (kind,))]
    if all(isinstance(w, str) for w in words):
        return f"--{name}: expected one of {', '.join(words)}, found {found}"
    return f"--{name}: expected {_KINDS.get(words[0], 'a path')}, found {found}"
