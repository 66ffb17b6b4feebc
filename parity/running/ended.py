"""Run the user's code where it may end the program, as by sys.exit, which is no error that others catch."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import convert

COMMAND = os.path.join(os.path.dirname(os.path.abspath(convert.__file__)), "")  # where requests to end are handled


class Ended(Exception):
    """What code of the user's raises that is no Exception; its text names the type."""


@contextmanager
def without_end() -> Iterator[None]:
    """Run the user's code. Raises: Ended in place of what is no Exception, but for Ctrl-C and a request to end."""
    try:
        yield
    except Exception:
        raise
    except BaseException as error:
        *_, last = traceback.extract_tb(error.__traceback__)
        if isinstance(error, KeyboardInterrupt) or last.filename.startswith(COMMAND):
            raise
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        why = " (the code ends the program: let it return, or raise an error)" * isinstance(error, SystemExit)
        raise Ended(f"{what}{why}").with_traceback(error.__traceback__) from None
