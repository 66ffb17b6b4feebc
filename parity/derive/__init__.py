"""Derive the Table between two models from evidence, and prove it.

    d = parity.derive(torch_module, nnx_module, (images,))
    d.table.save("my.table"); d.proven, d.error, d.missing

Twelve rooms, of which each imports only those before it:

    trace/     records a tape of each side's primitive operations, alike for every framework
    forms/     changes a tape to another form that computes the same
    edits/     changes a tape so that it may become equal to the other one: causes why models differ
    match/     finds the left element of each right one by the values that meet them
    fold/      writes this map of elements as the lines of a Table
    prove/     runs both models on other weights and inputs, and decides whether the Table is right
    explain/   finds where both models part, and why: the edit without which they agree
    search/    matches both tapes, in other ways where parameters are left
    missing/   says why no full Table comes out
    findings/  defines what was found, and says it in words
    conclude/  writes the Table of a match, proves it, and explains what differs
    report/    writes the page

deriving leads through them. limits states what counts as equal, as a partner and as large, and how long each search may
take. command is the command line (user_code runs the user's files, and user_modules keeps their imports apart), and
transfer copies weights at once.
"""

import sys
from inspect import getdoc, signature
from types import ModuleType
from typing import Any

from .deriving import derive
from .explain.divergence import Divergence
from .findings.derivation import Derivation
from .trace.call import Call

__all__ = ["Call", "Derivation", "Divergence", "derive"]


class _Callable(ModuleType):
    """This package under the name of its function: `parity.derive(...)` works whichever of the two was imported."""

    __signature__ = signature(derive)

    def __call__(self, *args: Any, **kwargs: Any) -> Derivation:
        return derive(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable
__doc__ = f"{getdoc(derive)}\n\nderive{signature(derive)}\n\n{__doc__}"  # what help(parity.derive) shows
