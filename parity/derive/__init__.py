"""Derive the Table between two models from evidence, and prove it.

    d = parity.derive(torch_module, nnx_module, (images,))
    d.table.save("my.table"); d.proven, d.error, d.missing

Five rooms, of which each imports only those before it:

    trace/  records a tape of each side's primitive operations, alike for every framework
    edits/  changes a tape so that it may become equal to the other one: causes why models differ
    match/  finds the left element of each right one by the values that meet them
    fold/   writes this map of elements as the lines of a Table
    prove/  runs both models on other weights and inputs, and says where they part

limits states what counts as equal, as a partner and as large, and how long each search may take.

deriving leads through them, and rounds numbers its matches: candidates runs the models for the matching, and as_called
matches them in each way in which the right one may be called, with masks and tables of both at their own values; alone
finds other buffers of one side; recomposed matches tapes of another form where the plain ones end early, and edited
those with an edit. conclusion concludes: writing folds a match into lines (summands orders terms of which only the sum
counts before it), verdict says whether they are proven, partings lists where the models part, remarks says what is
known beside the verdict, and comments writes it above the lines. Where no full Table comes out, unmatched lists what
has no partner, depths compares numbers of blocks, widths the sizes of parameters, strides those of convolutions,
shifted the rows of tables, weight_norms names weight normalization of one side, and chosen says which partners nothing
confirms. unread_rows tells tables of which the inputs read some rows alone.

derivation is what comes out: evidence has it, derivation says it in words, "next: ..." too. command is the command
line (user_code runs the user's files, and user_modules keeps their imports apart), report/ its page, and transfer
copies weights at once.
"""

import sys
from types import ModuleType
from typing import Any

from .derivation import Derivation
from .deriving import derive
from .prove.divergence import Divergence
from .trace.call import Call

__all__ = ["Call", "Derivation", "Divergence", "derive"]


class _Callable(ModuleType):
    """This package under the name of its function: `parity.derive(...)` works whichever of the two was imported."""

    def __call__(self, *args: Any, **kwargs: Any) -> Derivation:
        return derive(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable
