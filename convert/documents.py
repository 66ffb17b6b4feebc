"""Return the path of a documentation page, in the repository or in an installed package."""

from __future__ import annotations

import os

HERE = os.path.dirname(os.path.abspath(__file__))
INSTALLED = os.path.join(HERE, "docs")  # where a wheel contains docs/


def document(name: str) -> str:
    """Return the path of a page: document("table") is docs/table.md in the repository, or where it was installed."""
    if os.path.isdir(INSTALLED):
        return os.path.join(INSTALLED, f"{name}.md")
    root = os.path.dirname(HERE)
    try:
        here = os.path.samefile(root, os.curdir)
    except OSError:  # the current folder was removed
        here = False
    return os.path.join("" if here else root, "docs", f"{name}.md")
