"""Build a card for each place where the models part, and for whatever else keeps them from being equal."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Sequence

from convert.folding import fold as folded_names
from parity.derive.edits.edit import and_so
from parity.derive.explain.divergence import LATE, Divergence
from parity.derive.findings.derivation import Derivation, dropped_by_side
from parity.derive.fold.rows import of_it
from parity.derive.limits import EQUAL_OUTPUTS, PARTED_USES
from parity.derive.match.advice import Stop
from parity.derive.match.choices import Step
from parity.derive.trace.names import split
from parity.derive.trace.reason import OneSided
from parity.derive.trace.sites import OWN, class_at
from parity.derive.trace.sites import place as site
from parity.page.cards import facts
from parity.page.markup import Markup, coded, join, name, prose, tag
from specs.notation.paths import normal
from specs.numbers import limit, short
from specs.words import begun, count

from .tree import STOPPED, alone_anchors, anchors, link, parting_uses, stopping


def cards(derivation: Derivation) -> Markup:
    """Build a card for each place where the models part and for what is missing, and say what to do next."""
    addresses = anchors(derivation)
    articles = [_stated(what, how) for what, how in derivation.unlike]
    articles += [
        _parting(derivation, place, addresses.get((place.left, place.right))) for place in derivation.divergences
    ]
    articles += [_stopped(derivation, derivation.stopped)] if derivation.stopped else []
    articles += [_stated(what, how) for what, how in derivation.not_shown]
    parts = [tag("div", *articles, class_="cards")] if articles else []
    parts += [_without_partner(derivation)] if derivation.missing else []
    following = derivation.following
    parts += [tag("p", tag("b", "Next: "), coded(f"{following}."), class_="next")] if following else []
    return tag("section", tag("h2", "Where the models differ"), *parts) if parts else Markup()


def _parting(derivation: Derivation, place: Divergence, address: str | None) -> Markup:
    """Build the card of a place where the models part.

    Args:
      address: of its row in the table of modules.
    """
    whole = place.of_outputs
    title = "Outputs of both models" if whole else begun(place.kind or "values part")
    modules = [] if whole else [("module", place.left, place.right), *_classes(derivation, place)]
    most = EQUAL_OUTPUTS if whole else PARTED_USES
    both, cause = _values(place)
    sides = _sides_table([*both, *modules, ("last that agrees", *_before(derivation, place))], len(both))
    rows = facts(_facts(derivation, place, most, cause), "" if both else "cause")
    use = parting_uses(derivation).get(address or "")
    # a table that is read as it is has its row outside of the module that reads the result
    row = link(address, f"the row of {', '.join(use.left)}") if use and use.kind == "place" else link(address)
    return tag("article", tag("h3", title, row), sides, rows, class_=_class(derivation, place.size <= most))


def _classes(derivation: Derivation, place: Divergence) -> list[tuple[str, str, str]]:
    """State the classes of both modules at a place; nothing where neither is known, as in a function."""
    left, right = map(class_at, (place.left, place.right), derivation.classes)
    return [("class", left or "-", right or "-")] if left or right else []


def _facts(derivation: Derivation, place: Divergence, most: float, cause: str) -> list[tuple[str, str]]:
    """List what is known of a place: by how much the models differ there, and why."""
    size = f"{short(place.size)} of the largest value" if math.isfinite(place.size) else "not comparable"
    worst = "difference" if place.of_outputs else "worst difference"  # a row of the table has the mean
    worst += " in the first place" * (len(place.places) > 1)
    label = "recomputed" if place.both and not math.isnan(place.rest) else "cause"
    first = f" at {place.left}" * (len(place.places) > 1)  # the others have sizes of their own
    rows = [(worst, f"{size}{first} (limit {limit(most)})"), (label, cause)]
    if len(place.places) > 1:
        rows.append((f"places on the {place.changed}", place.all_places))
    lacking = [one for names, why in derivation.alone if place.cause.startswith(why) for one in names]
    rows += [("missing", ", ".join(folded_names(lacking)))] if lacking else []
    return rows if place.cause else [*rows, *_only(derivation, place)]


def _stopped(derivation: Derivation, at: Stop) -> Markup:
    """Build the card of the use at which matching stopped."""
    title = tag("h3", "Stopped at ", name(at.where), link(STOPPED if stopping(derivation) else None))
    look = facts([("compare before it", at.before)]) if at.before else Markup()
    return tag("article", title, _sentence(at.why), look, class_="card")


def _only(derivation: Derivation, place: Divergence) -> list[tuple[str, str]]:
    """List the parameters that the module of one side alone has, at a place without a cause."""
    rows = []
    dropped_by = dropped_by_side(derivation.table)
    for side, path in (("left", place.left), ("right", place.right)):
        alone = [array for array in dropped_by[side] if _is_of(re.sub(r"\{[a-z]\}", "#", array), path)]
        names = (name for use in derivation.unmatched if use.side == side and site(use.site, use.names) == path
                 for name in use.names)  # fmt: skip
        if leaves := dict.fromkeys(split(name)[1] for name in (*alone, *names)):
            rows.append((f"only the {side} has", ", ".join(leaves)))
    return rows


def _is_of(name: str, path: str) -> bool:
    """Tell whether an array is of a module: "params/layer_#/norm/bias" of "Net/layer_0/norm"; # stands for numbers."""
    module, own = re.split(r"[./]", normal(name))[:-1], re.split(r"[./]", normal(path))
    return module == own or (module[:1] == ["params"] and module[1:] == own[1:])


def _stated(what: str, how: str) -> Markup:
    return tag("article", tag("h3", begun(what)), _sentence(how), class_="card")


def _class(derivation: Derivation, is_within: bool) -> str:
    """Return the class of a card: red is what exceeds its limit, amber if the outputs are proven to be equal."""
    return "card within" if is_within else "card near" if derivation.proven else "card"


def _values(place: Divergence) -> tuple[list[tuple[str, str, str]], str]:
    """Return (what, its value on the left, on the right), if a cause is of one value, and what else it says."""
    if not place.both:
        unknown = LATE if place.late else "none was confirmed"
        return [], place.cause.replace(and_so(place.more), _elsewhere(place)) or unknown
    left, right = place.both
    return [(place.kind, left, right)], _recomputed(place)


def _recomputed(place: Divergence) -> str:
    """Say what came of recomputing without a difference of two values, which stand in a table above."""
    if math.isnan(place.rest):
        text = f"this {place.kind}"
    else:
        rest = f"agree to {short(place.rest)}" if place.rest else "are equal"
        rest = f"differ by {short(place.rest)}, for the next cause" if place.partial else rest
        text = f"with the same {place.kind} on both sides, they {rest}"
    return text + _elsewhere(place)


def _elsewhere(place: Divergence) -> str:
    """Say in how many more places a cause is, unless a row of the card lists them."""
    return and_so(place.more) if len(place.places) < 2 else ""


def _sides_table(rows: Iterable[tuple[str, str, str]], keys: int) -> Markup:
    """Build a table with a column for each side; the values of the first rows, as many as keys, stand out.

    The other rows have names of modules.
    """
    heads = tag("thead", tag("tr", *(tag("th", text, scope="col") for text in ("", "left", "right"))))
    lines = []
    for k, (label, *values) in enumerate(rows):
        kind = "key" if k < keys else None
        cells = [tag("td", prose(value) if kind else name(value), class_=kind) for value in values]
        lines.append(tag("tr", tag("th", prose(label), scope="row"), *cells))
    return tag("table", tag("caption", "Both sides", class_="unseen"), heads, tag("tbody", *lines), class_="both")


def _before(derivation: Derivation, place: Divergence) -> tuple[str, str]:
    """Name the last use before a place at which both models meet the same values, on either side."""
    sites = [(*_sites_of(use), use.gap) for use in derivation.uses]
    before = itertools.takewhile(lambda use: use[1] != place.right, sites)
    agreeing = [(left, right) for left, right, gap in before if gap <= PARTED_USES]
    return agreeing[-1] if agreeing else ("none", "none")


def _sites_of(use: Step) -> tuple[str, str]:
    """Return where both sides use a parameter; rows of a table, which are read as they are, stand at its own module."""
    if use.kind == "place":
        return site("", use.left), site("", use.right)
    return use.modules


def _sentence(text: str) -> Markup:
    return tag("p", prose(f"{begun(text)}."), class_="key")


def _without_partner(derivation: Derivation) -> Markup:
    """List the parameters of both sides that have no partner, by module, unless its reason names them.

    Those whose lack is the cause of a place where the models part stand in its card.
    """
    if derivation.nothing_matched:
        left, right = derivation.arrays
        alone = f"{'All ' * (right > 1)}{count(right, 'array')} of the right model"
        alone += f" and {'all ' * (left > 1)}{left:,} of the left one"
        return tag("article", tag("h3", "Parameters without a partner"), tag("p", prose(f"{alone}.")), class_="card")
    rows = alone_anchors(derivation)
    run = {array: k for k, use in reversed([*enumerate(derivation.unmatched)]) for array in use.names}
    listed = list[tuple[str, str]]()
    others = [group for group in derivation.alone if not derivation.is_cause(group[1])]
    for names, why in sorted(others, key=lambda group: min(run.get(array, len(run)) for array in group[0])):
        address = next((rows[array] for array in names if array in rows), None)
        row = link(address, "the first row" if names[1:] else "its row")
        named = isinstance(why, OneSided) and all(re.search(rf"(?<!\S){re.escape(array)}\b", why) for array in names)
        listed.append(("reason", join(prose(why if named else of_it(why, folded_names(names))), row)))
        listed += [] if named else _by_module(sorted(names, key=lambda array: run.get(array, len(run))))
    parts = [
        *_listed("Right", [array for names, _ in others for array in names], listed),
        *_listed("Left", derivation.left_over, _by_module(derivation.left_over)),
    ]
    return tag("article", *parts, class_="card") if parts else Markup()


def _listed(side: str, names: Sequence[str], rows: Sequence[tuple[str, str]]) -> list[Markup]:
    """Build the heading of one side and its list; nothing of a side on which each parameter has a partner."""
    parameters = "parameter" if len(names) == 1 else "parameters"
    return [tag("h3", f"{side} {parameters} without a partner"), facts(rows)] if names else []


def _by_module(names: Iterable[str]) -> list[tuple[str, str]]:
    """Return ("in MODULE", "bias, scale") for each module, with the numbers of blocks folded."""
    modules: dict[str, list[str]] = {}
    for full in folded_names(names):
        *module, leaf = re.split(r"[./](?=[^./]*$)", full)
        modules.setdefault("".join(module) or OWN, []).append(leaf)
    return [(f"in {module}", ", ".join(leaves)) for module, leaves in modules.items()]
