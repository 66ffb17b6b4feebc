"""Define preprocessing: how the pixels of a picture become the input of a network."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from .config import Size, misfits, tuples
from .numbers import exact

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """The steps from a picture to an input: resize, crop the centre, scale, normalise.

    Args:
      mean: one number, or one for each channel: subtracted from the scaled values.
      std: the same: the difference is divided by it.
      range: (low, high): what the pixel values 0 and 255 are scaled to first.
      crop: side of the crop, as a share of the side of the resized image: 224 of 256 pixels are 0.875.
      interpolation: kernel of the antialiased resizing.
      image: size of the crop, in pixels; None: what the network's Config states.
    """

    mean: float | tuple[float, ...]
    std: float | tuple[float, ...]
    range: tuple[float, float]
    crop: float
    interpolation: Literal["bicubic", "bilinear"]
    image: Size | None = None


def normalised(
    mean: float | tuple[float, ...], std: float | tuple[float, ...], crop: float, interpolation: Any = "bicubic"
) -> Preprocessing:
    """Return the preprocessing that scales pixels to 0..1 first, as torchvision's ToTensor does."""
    return Preprocessing(mean=mean, std=std, range=(0.0, 1.0), crop=crop, interpolation=interpolation)


class Known(NamedTuple):
    """What is known of a model's preprocessing: some fields of Preprocessing.

    Args:
      values: by the field's name.
      assumed: names of those that nobody states for this very file.
    """

    values: Mapping[str, Any] = MappingProxyType({})
    assumed: frozenset[str] = frozenset()

    def above(self, other: "Known") -> "Known":
        """Put these fields above another's."""
        assumed = (other.assumed - self.values.keys()) | self.assumed
        return Known({**other.values, **self.values}, assumed)

    def only(self, names: Iterable[str]) -> "Known":
        """Leave all other fields out."""
        chosen = {name: self.values[name] for name in names if name in self.values}
        return Known(chosen, self.assumed & chosen.keys())

    def all_assumed(self) -> "Known":
        return Known(self.values, frozenset(self.values))

    @property
    def open(self) -> list[str]:
        """Name the fields that `complete` lacks."""
        return [f.name for f in fields(Preprocessing) if f.name not in self.values and f.name != "image"]

    def complete(self) -> Preprocessing:
        """Return the whole preprocessing. Raises: ValueError that names every field that is open."""
        if self.open:
            raise ValueError(f"{', '.join(self.open)} {'is' if len(self.open) == 1 else 'are'} open")
        return Preprocessing(**self.values)

    def as_json(self) -> dict[str, Any]:
        """Return {field: value, ..., "assumed": [fields]}, in the order of the fields; {} if nothing is known."""
        names = [f.name for f in fields(Preprocessing) if f.name in self.values]
        values = {name: _list(self.values[name]) for name in names}
        return {**values, "assumed": [name for name in names if name in self.assumed]} if values else {}

    def __str__(self) -> str:
        shown = self.as_json()
        assumed = ", ".join(shown.pop("assumed", []))
        text = " ".join(f"{name}={exact(value)}" for name, value in shown.items())
        return f"{text} (assumed: {assumed})" if assumed else text


UNKNOWN = Known()


def _list(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def stated(values: Mapping[str, Any]) -> Known:
    """Return fields as their user states them. Raises: ValueError that lists every one that does not fit."""
    if not values:  # as of most files: evaluating the types of all fields would take milliseconds
        return UNKNOWN
    values = {name: tuples(value) for name, value in values.items()}
    if problems := misfits(Preprocessing, values) or _beyond(values):
        raise ValueError("; ".join(problems))
    return Known({name: value for name, value in values.items() if value is not None})


def _beyond(values: Mapping[str, Any]) -> list[str]:
    """List the fields whose type is right and whose value cannot be."""
    image = values.get("image")
    low, high = values.get("range", (0, 1))
    tests = {
        "std": (all(part > 0 for part in each(values.get("std", 1))), "above 0"),
        "mean": (bool(each(values.get("mean", 0))), "at least one number"),
        "range": (low < high, "the lower number first"),
        "crop": (0 < values.get("crop", 1) <= 1, "above 0, at most 1"),
        "image": (image is None or min(each(image)) > 0, "at least 1"),
    }
    return [
        f"{name}={exact(values[name])}: {what}" for name, (valid, what) in tests.items() if name in values and not valid
    ]


def each(value: Any) -> tuple[Any, ...]:
    """Return a value for each channel as a tuple; one value for all channels is a tuple of one."""
    return value if isinstance(value, tuple) else (value,)


def fits(one: Preprocessing | Known, channels: int) -> bool:
    """Tell whether mean and std are of this many channels."""
    values = one.values if isinstance(one, Known) else vars(one)
    return all(len(each(values.get(name, 0))) in (1, channels) for name in ("mean", "std"))
