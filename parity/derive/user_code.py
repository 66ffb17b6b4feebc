"""Run a user's file, and take a model and its inputs from what its function returns."""

from __future__ import annotations

import importlib.util
import inspect
import os
from inspect import Parameter
from typing import Any

from convert.errors import ConvertError, MissingFile, UsageError, called
from convert.files import is_named_as_checkpoint
from convert.version import PACKAGES
from parity.running.ended import without_end
from specs.words import count, hint, in_a_row

from .trace.call import Call
from .trace.frames import line_of, line_of_definition, message
from .trace.sides import MODELS, is_model, without_variables
from .user_modules import Imports

RETURN = "return (model, inputs)"
CODE = "write file.py:function, where the function returns (model, inputs)"


def parsed(text: str) -> tuple[str, str]:
    """Split file.py:function. Raises: UsageError for what is not such; ConvertError where there is no such file."""
    path, _, name = text.rpartition(":")
    if os.path.exists(text) and (os.path.isdir(text) or is_named_as_checkpoint(text)):
        raise UsageError(f"{text}: is no code: {CODE}; {called('convert')} diff compares two checkpoints")
    if not path or not name.isidentifier():
        raise UsageError(f"{text}: {CODE}")
    if not os.path.isfile(path) and not path.endswith(".py") and not os.path.exists(path):
        file = f"{path.replace('.', os.sep)}.py"  # as a module is named
        where = f": {file}:{name}" if os.path.isfile(file) else ""
        raise UsageError(f"{text}: {path} is no file: {CODE}{where}")
    if not os.path.isfile(path):
        raise MissingFile(path)
    return path, name


def side_names(left: str, right: str) -> tuple[str, str]:
    """Name two sides, each file.py:function, without the folders of their files where the names differ so."""
    one, other = os.path.basename(left), os.path.basename(right)
    return (one, other) if one != other else (left, right)


def build(text: str, which: str, imports: Imports) -> tuple[Any, Any]:
    """Return (model, inputs) of file.py:function; None for inputs that it does not give.

    Args:
      which: left or right, for messages. imports: of both sides.
    Raises: UsageError for what is no model; ConvertError for whatever the user's code raises.
    """
    path, name = parsed(text)
    spec = importlib.util.spec_from_file_location(os.path.splitext(os.path.basename(path))[0], path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path}: is not a Python file")
    module, folder = importlib.util.module_from_spec(spec), os.getcwd()
    function: Any = None
    try:
        with imports.of(path), without_end():
            spec.loader.exec_module(module)
            if not callable(getattr(module, name, None)):
                functions = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
                near = hint(name, functions) or f"; it has {', '.join(functions) or 'none'}"
                raise UsageError(f"{path}: has no function {name!r}{near}")
            function = getattr(module, name)
            _check_arguments(function, path, name)
            result = function()
    except UsageError:
        raise
    except Exception as error:  # the user's code may raise anything
        why = _explained(error, os.path.dirname(os.path.join(folder, path)))
        inside = "" if function is None else f" in {name}"  # else the file itself cannot be run
        raise ConvertError(f"{line_of(error) or path}{inside}: {message(error)}{why}") from error
    finally:
        os.chdir(folder)  # the user's code may have left it, to which the paths of the command are relative
    return divided(result, f"the {which} side, {path}{line_of_definition(function)} in {name}")


def _explained(error: Exception, folder: str) -> str:
    """Explain imports that fail; "" for all else. Args: folder: of the user's file."""
    if not isinstance(error, ImportError):
        return ""
    if "attempted relative import" in str(error):
        return " (the file runs by itself: write `from model import Net` for `from .model import Net`)"
    top = (error.name or "").partition(".")[0]
    own = [path for path in (f"{top}.py", top) if top in PACKAGES and os.path.exists(os.path.join(folder, path))]
    why = "Triptych has a package of that name, which is imported first"
    return f" ({why}: give {os.path.join(folder, own[0])} another name)" if own else ""


def _check_arguments(function: Any, path: str, name: str) -> None:
    """Check that a function can be called without arguments. Raises: UsageError that names those it requires."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # a callable that does not say what it takes
        return
    optional = Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD
    required = [p.name for p in parameters if p.default is Parameter.empty and p.kind not in optional]
    if required:
        raise UsageError(
            f"{path}{line_of_definition(function)}: {name} requires {in_a_row(required)}, but is called without "
            f"arguments: give them defaults, or write a function without that calls it"
        )


def divided(result: Any, where: str) -> tuple[Any, Any]:
    """Return (model, inputs) of what a function returns. Raises: UsageError that says what that is instead."""
    if result is None:
        raise UsageError(f"{where}: returns None: {RETURN}")
    if is_model(result):
        return result, None
    if isinstance(result, list):
        raise UsageError(f"{where}: returns a list of {len(result)}: {RETURN}, which is a tuple")
    first, second = result if isinstance(result, tuple) and len(result) == 2 else (result, None)
    if without_variables(first):
        name = type(first).__name__
        raise UsageError(
            f"{where}: returns the linen module {name} without its variables: return (module, variables), inputs"
        )
    if is_model(first):
        return first, second if isinstance(second, (tuple, Call)) else (second,)
    if is_model(second) or without_variables(second):
        raise UsageError(f"{where}: returns the inputs first: {RETURN}")
    if isinstance(result, tuple) and len(result) != 2:
        what = f"returns {count(len(result), 'value')}: {RETURN}, where several inputs are a tuple"
        raise UsageError(f"{where}: {what} and a model may be (module, variables)")
    raise UsageError(f"{where}: {type(first).__name__} is no model: give {MODELS}")
