"""Collect all results of a run with what was run: as text, as rows for `--json`, or as one page."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from convert.errors import ConvertError, UsageError
from convert.replacing import Text
from convert.targets import folder_of
from parity.given.module_names import Listed
from parity.results.result import Divergence, Result

PAGE = Text(rb"(?i)<!doctype html>", "page (HTML)")


def check_page(path: str) -> None:
    """Check that a page can be written, before the work that fills it. Raises: UsageError."""
    folder_of(path)
    if os.path.isdir(path):
        raise UsageError(f"{path}: is a folder: name a file in it")


def write_page(path: str, text: str) -> None:
    """Write a page. Raises: ConvertError where the system does not let it."""
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise ConvertError(f"{path}: {error.strerror}") from error


@dataclass(repr=False)
class Report:
    """All results of a run, with what was run.

    Args:
      about: what was run, by label: date, command, versions, each side's dtype and device, each checkpoint's sha256.
      modules: of each model of no known architecture, in the order of the model.
    """

    results: list[Result] = field(default_factory=list)
    about: dict[str, str] = field(default_factory=dict)
    modules: dict[str, list[Listed]] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Result]:
        return iter(self.results)

    def __repr__(self) -> str:
        from parity.given.quoting import unmarked
        from parity.summaries.summary import verdict

        return f"<Report: {unmarked(verdict(self.results))}>"

    def __len__(self) -> int:
        return len(self.results)

    def __add__(self, other: Report) -> Report:
        return Report(self.results + other.results, {**self.about, **other.about}, {**self.modules, **other.modules})

    @property
    def passed(self) -> bool:
        """Tell whether something was compared of each model, but for what could not run, and nothing of it differs."""
        from parity.summaries.summary import passed

        return passed(self.results)

    @property
    def first_divergence(self) -> Divergence | None:
        """Return the first that the text names: the name of the tap (a str), with error, previous tap and guess."""
        from parity.summaries.findings import find

        firsts = (finding.result.first_divergence for finding in find(self.results))
        return next((first for first in firsts if first is not None), None)

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows that `--json` prints."""
        return [result.as_dict() for result in self.results]

    def to_html(self) -> str:
        """Build one self-contained page."""
        from .page.document import page

        return page(self.results, self.about, self.passed, self.modules)

    def __str__(self) -> str:
        from convert.terminal import WIDTH, columns
        from parity.summaries.report_text import render

        return render(self.results, width=columns(sys.stdout) or WIDTH)
