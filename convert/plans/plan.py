"""Define Plan: everything a conversion will do, and what a user should know of it. planning.py builds it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from convert import folding
from convert.arrays.steps import ConstantFilling, Promise, Step, supplied
from convert.config.configure import Configuration
from convert.config.conventions import differing, no_effect, unshown_from, without_effect
from convert.config.inference import headless, without_array
from convert.config.module_settings import share
from convert.config.pixels import SCALING, conflict, published
from convert.config.variants import restrictions, variant_of
from convert.errors import UsageError
from convert.files.base import Reader, Tensor
from convert.reading import exchanged, masters
from convert.reading.aside import Aside, set_aside, summary
from convert.reading.nesting import WRAPPERS
from convert.reading.own_names import unusual_layout
from convert.reading.readings import Reading
from convert.reading.recognise import USUAL, dialects
from convert.records import altered
from convert.records.record import DIALECT, SUGGESTED, TOOL_VERSION, Record, likely, suggested_by
from specs import config as configs
from specs import words
from specs.dialects import HUB, extras
from specs.layer import count
from specs.numbers import exact
from specs.preprocessing import Known

from .by_dialect import EARLIER, Translation

if TYPE_CHECKING:
    import numpy as np

    from specs.applied.layout import Layout
    from specs.table import Table


@dataclass(frozen=True, eq=False, repr=False)
class Plan(AbstractContextManager["Plan"]):
    """Everything a conversion will do; `plan` builds it. A context manager that closes the source file.

    Args:
      reader: the open source.
      record: of the source.
      reading: what the source is.
      dst: dialect of the target.
      accepted: Config fields that nobody states and whose default the caller accepted.
    """

    reader: Reader
    record: Record
    reading: Reading
    configuration: Configuration
    dst: str
    translation: Translation
    accepted: tuple[str, ...] = ()
    spelled: Callable[[str], str] = str  # turns names of the target's dialect into those to write
    accounted: frozenset[str] = frozenset()  # arrays and entries of the file that something beside this plan converts
    own_names: Mapping[str, str] = field(default_factory=dict)  # paddle's own names of the target's arrays
    beside: tuple[str, ...] = ()  # other files that this is planned from, as that of --like
    target_part: str | None = ""  # where the target has these weights, as beside an optimizer's state; None: nowhere

    @cached_property
    def _layout(self) -> Layout:
        return self.translation.layout()

    @cached_property
    def checks(self) -> tuple[Promise, ...]:
        """Return what has to hold of the source's values: that tied arrays are equal."""
        return self.translation.promises(self._layout)

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """Return every target tensor and what fills it."""
        steps = self.translation.steps(self._layout)
        return tuple((tensor._replace(name=self.spelled(tensor.name)), filling) for tensor, filling in steps)

    @property
    def table(self) -> Table:
        """Return where each array goes, as a Table from the source's dialect to the target's."""
        return self.translation.table

    @property
    def sources(self) -> Mapping[str, Tensor]:
        return self.translation.sources

    @property
    def architecture(self) -> str:
        return self.reading.architecture

    @property
    def src(self) -> str:
        return self.reading.dialect

    @cached_property
    def variant(self) -> str | None:
        return variant_of(self.architecture, self.config)

    @property
    def parameters(self) -> int:
        return count(list(self.reading.spec.layers(self.config)))

    @property
    def config(self) -> Any:
        return self.configuration.config

    @property
    def preprocessing(self) -> Known:
        """Return what is known of the preprocessing of images."""
        return self.configuration.preprocessing

    @property
    def origins(self) -> Mapping[str, str]:
        """Return where each Config field comes from: user, record, shapes, dialect, variant, assumed or default."""
        return {**self.configuration.origins, **dict.fromkeys(self.accepted, "assumed")}

    @property
    def assumed(self) -> tuple[str, ...]:
        """List Config fields that change the outputs and are assumed, not known: now, or since a record was written."""
        names = {*self.configuration.assumed, *self.accepted}
        return tuple(name for name in configs.as_dict(self.config) if name in names)

    @property
    def suggested(self) -> Mapping[str, str]:
        """Return what suggests each field that neither the file's arrays nor anybody states: see record.SUGGESTED."""
        return self.configuration.suggested

    def _unsure(self) -> list[str]:
        """Return fields that change the outputs and that only a damaged record states: the next record marks them."""
        if not self.record.damage:
            return []
        stated = unshown_from(self.reading.spec, self.config, self.origins, "record")
        return [name for name in stated if name not in self.configuration.shown]

    def notes(self) -> list[str]:
        """Return what the user should know and need not act on: what outputs depend on before what is set aside."""
        lines = [*self.doubts(), *self._conflicting(self.dst, self.conflicts()), *self.taken_from_dialect()]
        lines += [*self._scaled_otherwise(), *self.of_modules(), *self.part(), *self.left_out()]
        absent = self.translation.absent
        lines += [f"tied and not in the file: {', '.join(folding.fold(absent))}"] if absent else []
        lines += [*self._used_extras(), *self._tied()]
        return [*lines, *self.filled(), *self._recorded(), *self.counts()[1], *self._unnested()]

    def _nested(self) -> dict[str, str]:
        """Return {dialect: part of its file that had these weights}, of this file and of those it was written from."""
        earlier = {dialect: part for dialect, part in self.record.nested.items() if dialect != self.src}
        return {**earlier, **({self.src: self.reading.prefix} if self.reading.prefix else {})}

    def _unnested(self) -> Iterator[str]:
        """Report that the target has the model in another part than the file of its dialect had, or in none."""
        part, own = self._nested().get(self.dst), self.target_part
        if part and own is not None and part.rstrip("./") != own:
            written = f"under {own!r}" if own else "without it"
            yield f"the {self.dst} file of these weights had them under {part!r}: they are written {written}"

    def _recorded(self) -> Iterator[str]:
        """Report batch counters of the file that the target's framework has no place for."""
        own = self.counts()[0].keys() - self.translation.passed_on
        if names := [self.sources[name].name for key, name in self.translation.carried.items() if key in own]:
            what = f"{words.count(len(names), 'batch counter')} stay in the record alone, which a conversion back reads"
            yield f"{what}, as {self.dst} stores none: {folding.summarised(names)}"

    def taken_from_dialect(self) -> Iterator[str]:
        """Say which fields that change the outputs are those of the dialect's own code, as the file does not say."""
        fixed = self._stated(unshown_from(self.reading.spec, self.config, self.origins, "dialect"))
        why = "its modules were not read for it" if self.reader.modules else "the file does not say"
        idle = [n for n in without_effect(self.reading.spec, self.config) if self.origins.get(n) == "dialect"]
        why_idle = {name: no_effect(self.reading.spec, self.config, name) for name in idle}
        alike = ([name for name in idle if why_idle[name] == one] for one in dict.fromkeys(why_idle.values()))
        beside = "".join(f"; {self._stated(names)} ({why_idle[names[0]]})" for names in alike)
        if fixed:
            yield f"{why}, assumed{suggested_by(DIALECT + self.src)}: {fixed}{beside}"

    def _used_extras(self) -> Iterator[str]:
        """Report matrices that the dialect lists as unused and that equal a used one: its code may tie them."""
        unused = {one.name for one in extras(dialects(self.architecture)[self.src], self.config)} & self.sources.keys()
        for name in [name for name in sorted(unused) if len(self.sources[name].shape) > 1]:
            kind = self.sources[name][1:]
            for other in self.translation.moved:
                if other not in unused and self.sources[other][1:] == kind and self._hash(other) == self._hash(name):
                    tie = f"if its code ties them, tie them in the table of {self.src}"
                    yield f"{name}, an extra of {self.src}, has the values of {other}: {tie}"

    def _tied(self) -> Iterator[str]:
        """Report arrays of the file that are one there (tied weights), and several in the model."""
        if ties := self.reader.ties({self.sources[name].name: self.sources[name] for name in self.translation.moved}):
            what = "tied in the source, and an array each in the target (a .pt stores equal ones once)"
            yield f"{what}: {', '.join(folding.equations(ties))}"

    def _hash(self, name: str) -> bytes:
        import hashlib

        hashed = hashlib.sha256()
        for piece in self.reader.pieces(self.sources[name].name):
            hashed.update(piece)
        return hashed.digest()

    def part(self) -> list[str]:
        """Report which part of the file was taken, and a layout that is not of the format's usual framework."""
        notes = [f"took the weights under {self.reading.prefix!r}"] if self.reading.prefix else []
        notes += self.reader.remarks
        below = len(self.reading.place)
        changed = (t.name[below:] for name, t in self.reading.tensors.items() if t.name[below:] != name)
        if wrappers := sorted({wrapper for name in changed for wrapper in re.findall(WRAPPERS, name)}):
            notes.append(f"read without the wrappers in its names: {' '.join(wrappers)}")
        framework = dialects(self.architecture)[self.src].framework
        usual = USUAL.get(self.reader.format, framework)
        if framework != usual and "dialect" not in self.record.hints:
            notes.append(unusual_layout(self.reader, self.src, framework, usual))
        moved, stored = self.translation.moved, self.reading.tensors
        bits = [stored[name].name for name in moved if stored[name].dtype != self.sources[name].dtype]
        return [*notes, *folding.bfloat16(bits, len(moved) - len(bits)), *self._other_weights]

    @cached_property
    def _other_weights(self) -> list[str]:
        weights = [self.sources[name] for name in self.translation.moved]
        return [*exchanged.remarks(self.reader, weights), *masters.remarks(self.reader, weights)]

    def left_out(self) -> list[str]:
        """Report what of the file is set aside: arrays that no step uses, and entries that are no arrays."""
        arrays = [f"set aside {summary(self.aside)}"] if self.aside else []
        return arrays + [f"set aside {line}" for line in self.skipped()]

    @cached_property
    def aside(self) -> list[Aside]:
        """List the arrays of the file that are in no step: what the conversion leaves out."""
        converted = (*self.translation.moved, *self.translation.carried.values())
        used = {self.sources[name].name for name in converted} | self.accounted
        return set_aside(self.reader.tensors, used, self.reading)

    def counts(self) -> tuple[dict[str, int], list[str]]:
        """Return the batch counters that the target does not store, for its record; and remarks on doubtful ones."""
        from convert.arrays.counters import carried

        known = {name: self.sources[theirs] for name, theirs in self.translation.carried.items()}
        counters = {name: tensor for name, tensor in known.items() if tensor.name not in self.record.supplied}
        stored = self.translation.carried.values()
        copied = [self.sources[name] for name in self.translation.counters if name not in stored]
        own, remarks = carried(self.reader, counters, copied)
        return {**{name: self.record.carried[name] for name in self.translation.passed_on}, **own}, remarks

    def skipped(self) -> list[str]:
        """Return what in the file is no array, and so neither converted nor proven."""
        part = self.reading.prefix
        return folding.skipped(
            self.reader.skipped.without(self.accounted), part.rpartition("/")[0] if part.endswith(".") else part
        )

    def of_modules(self) -> list[str]:
        """Report what the modules of a model that was pickled whole state; who has one in memory knows it."""
        spec, stating = self.reading.spec, self.configuration.stating
        names = unshown_from(spec, self.config, self.origins, "modules") if self.reader.on_disk else []
        stated = [self._stated([name]) + share(spec, self.config, name, stating[name]) for name in names]
        return [f"as the modules of the pickled model state: {', '.join(stated)}"] if stated else []

    def doubts(self) -> list[str]:
        """List doubts about the configuration: its record, contradictions, and what is assumed."""
        lines = list(self.configuration.remarks)
        marked = self.configuration.marked
        lines += self._assumed("the file does not say, assumed{}", [n for n in self.assumed if n not in marked])
        if not self.config.classes and self.origins.get("classes") in ("shapes", "user"):
            lines.append(headless(without_array(self.reading, self.reader.skipped)))
        lines += self._assumed("assumed{} when the record was written, not known", marked)
        for name, (fixed, own) in restrictions(self.architecture, self.config, self.src).items():
            page = f"the page of {self.architecture} says that {self.src}'s own code has {name}={exact(fixed)} alone"
            lines.append(f"the file has {name}={exact(own)}, and {page} (requires): one of them is wrong")
        return [*lines, *self.record.earlier(self.reader.tensors)]

    def _assumed(self, what: str, names: Iterable[str]) -> Iterator[str]:
        """Report fields that are assumed, those that an official variant suggests apart: "{}" in `what` says so."""
        reasons = {name: likely(self.suggested.get(name, "")) for name in names}
        for reason in dict.fromkeys(reasons.values()):
            yield f"{what.format(reason)}: {self._stated(n for n in reasons if reasons[n] == reason)}"

    def _stated(self, names: Iterable[str]) -> str:
        return ", ".join(f"{name}={exact(getattr(self.config, name))}" for name in names)

    def unlike_its_code(self) -> list[str]:
        """List fields of the file that its dialect's own code computes otherwise, as after a conversion into it."""
        return self._conflicting(self.src, self._against(self.src))

    def _conflicting(self, dialect: str, fields: Mapping[str, tuple[Any, Any]]) -> list[str]:
        """Describe each field, {name: (theirs, ours)}, that a dialect's own code computes otherwise."""
        return [self._conflict(dialect, name, *values) for name, values in fields.items()]

    def _conflict(self, dialect: str, name: str, theirs: Any, ours: Any) -> str:
        """Describe a field that a dialect's own code computes otherwise than these weights mean, or may mean."""
        meant = f"these weights mean {name}={exact(ours)}, so its outputs will differ"
        if name in self.assumed:
            meant = f"{name}={exact(ours)} is assumed of these weights, and if it is right, its outputs will differ"
        elif self.origins.get(name) == "user":
            meant = f"{name}={exact(ours)} is stated of these weights, so its outputs will differ"
        return f"{dialect}'s own code computes {name}={exact(theirs)}; {meant}"

    def _scaled_otherwise(self) -> list[str]:
        """Report that the target's own code feeds its networks with pixels on another scale."""
        dialect = dialects(self.architecture).get(self.dst)
        theirs = published(self.reading.spec, dialect, self.variant, self.config) if dialect else Known()
        own, differ = self.preprocessing.only(SCALING), conflict(self.preprocessing, theirs, self.config.channels)
        what = f"{self.dst}'s own code scales pixels by {theirs.only(SCALING)}; these weights need {own}"
        return [what] if differ else []

    @cached_property
    def supplied(self) -> tuple[str, ...]:
        """List target tensors that neither the file nor its record states: the record of the target marks them."""
        names = supplied(self.steps, self.sources, self.record.supplied | self.reader.filled)
        return tuple(name for name in names if name not in self.translation.recorded)

    @cached_property
    def uncounted(self) -> list[str]:
        """List batch counters of the target that neither the file nor its record states, so that they are 0."""
        known = {*self.translation.recorded, *self.translation.zeros}
        return [t.name for t, filling in self.steps if isinstance(filling, ConstantFilling) and t.name not in known]

    def filled(self) -> list[str]:
        """Report target tensors that the source lacks: arrays that the network never uses, and batch counters."""
        unused = self.translation.zeros
        why = "zeros, as its page says that the network never uses it, and the source lacks it"
        which = f"an extra of {self.dst}: tied arrays would be no extras"
        lines = [f"{why}: {', '.join(folding.fold(unused))} ({which})"] if unused else []
        if names := self.uncounted:
            counters = f"{words.count(len(names), 'batch counter')} set to 0, as the source stores none"
            lines.append(f"{counters}: {folding.summarised(names)}; {EARLIER}")
        return lines

    def conflicts(self) -> dict[str, tuple[Any, Any]]:
        """Return {field: (what the target's own code computes, what these weights mean)} where the two differ."""
        return {} if self.dst == HUB else self._against(self.dst)

    def _against(self, dialect: str) -> dict[str, tuple[Any, Any]]:
        fixed = dialects(self.architecture)[dialect].conventions
        return differing(self.reading.spec, self.config, fixed, fixed)

    def arrays(self) -> Iterator[tuple[str, np.ndarray]]:
        """Return (name, numpy array) of every target tensor, one at a time; bfloat16 and float8 widened to float32.

        Raises: ConvertError for tied arrays of the source that differ.
        """
        from convert.arrays.payload import arrays, check_steps

        check_steps(self)
        return arrays(self)

    def write(self, out: str | os.PathLike[str], force: bool = False, **options: Any) -> dict[str, Any]:
        """Write the target and return the record that travels with it; see `execute` for the options."""
        from convert.execute import write

        if self.dst == HUB:
            raise UsageError(f"{self.reader.path}: this plan has no target: make it with dst=..., as in dst='torch'")
        return write(self, out, force, **options)

    @property
    def tree(self) -> Any:
        """Return paddle's own name beside each array where they are known, else None: names alone nest the weights."""
        if not self.own_names:
            return None
        return {tensor.name: (self.own_names.get(tensor.name, tensor.name), tensor) for tensor, _ in self.steps}

    def facts(self) -> dict[str, Any]:
        """Return the facts of the record that are known before any payload is read."""
        return {
            "architecture": self.architecture,
            "variant": self.variant,
            "dialect": self.dst,
            "config": configs.as_dict(self.config),
            "assumed": [*self.assumed, *self._unsure()],
            **({SUGGESTED: dict(self.suggested)} if self.suggested else {}),
            **({"supplied": list(self.supplied)} if self.supplied else {}),
            **({"preprocessing": known} if (known := self.preprocessing.as_json()) else {}),
            **({"nested": nested} if (nested := self._nested()) else {}),
            **({"lossy": lossy} if (lossy := [] if self.record.change else self.record.lossy) else {}),
            "parameters": self.parameters,
            "source": {
                "file": os.path.basename(os.path.abspath(self.reader.path)) if self.reader.on_disk else None,
                "sha256": None,  # hashed while the plan is executed
                "dialect": self.src,
                "format": self.reader.format,
            },
            **altered.facts(os.path.basename(self.reader.path), self.record.content, self.record.change),
            "carried": self.counts()[0],
            "tool": TOOL_VERSION,
        }

    def close(self) -> None:
        self.reader.close()

    def __repr__(self) -> str:
        return f"Plan({self.reader.path!r}: {self.architecture}, {self.src} to {self.dst or 'no target'})"

    def __exit__(self, *_: object) -> None:
        self.close()
