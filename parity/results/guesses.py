"""Write a cause that was recomputed as a sentence, of a pair or of several pairs together."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from parity.given.quoting import quoted
from specs.numbers import short
from specs.words import in_a_row

EPSILON = "epsilon"
ACTIVATION = "activation"
EPSILONS = re.compile(rf"{EPSILON} \S+(?: or {EPSILON} \S+)*")


class Guess(str):
    """A cause that was recomputed, as text with its evidence in parentheses; "" for none.

    cause: the text without the evidence.
    what: a word for what differs, EPSILON or ACTIVATION; "" for anything else.  sides: what each model computes, by its
    label; none where the cause is no such setting.  error: how closely recomputing gives what was recorded.  after: the
    layer whose output an activation was applied to.
    """

    what: str = ""
    sides: Mapping[str, str] = MappingProxyType({})
    error: float = 0.0
    after: str = ""
    evidence: str = ""

    @property
    def cause(self) -> str:
        return self.removesuffix(f" ({self.evidence})") if self.evidence else str(self)

    @classmethod
    def known(cls, cause: str, evidence: str) -> Guess:
        guess = cls(f"{cause} ({evidence})")
        guess.evidence = evidence
        return guess

    @classmethod
    def of(cls, sides: Mapping[str, str], error: float, after: str = "") -> Guess:
        """Write what each model computes: "epsilon is 1e-5 in paddle, 1e-6 in flax and torch (...)"."""
        labels: dict[str, list[str]] = {}
        for label, words in sides.items():
            labels.setdefault(words, []).append(quoted(label))
        is_epsilon = all(EPSILONS.fullmatch(words) for words in labels)
        texts = [
            f"{words.replace(f'{EPSILON} ', '') if is_epsilon else words} in {in_a_row(owners)}"
            for words, owners in labels.items()
        ]
        text = f"{EPSILON} is " * is_epsilon + ", ".join(texts) + f", after {after}" * bool(after)
        all_of = "both" if len(labels) == 2 else "all"
        how = f"to {short(error)}" if error else "exactly"
        made = cls.known(text, f"recomputing {all_of} reproduces their outputs {how}")
        made.what = EPSILON if is_epsilon else ACTIVATION if after else ""
        made.sides, made.error, made.after = sides, error, after
        return made


def joined(guesses: Iterable[Guess]) -> Guess:
    """Write what pairs that part at one array have in common as one sentence; that of the first, if they contradict."""
    first, *others = guesses
    sides, error = dict(first.sides), first.error
    for guess in others:
        if not guess.sides or guess.after != first.after or any(sides.get(k, v) != v for k, v in guess.sides.items()):
            return first
        sides |= guess.sides
        error = max(error, guess.error)
    return Guess.of(sides, error, first.after) if first.sides else first
