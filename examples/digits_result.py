"""Describe what one model did in the example: how it trained, and how the frameworks' answers compare."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from specs.numbers import short

FRAMEWORKS = {"flax": "Flax", "torch": "PyTorch", "paddle": "PaddlePaddle"}
NAMES = {"mobile_former": "Mobile-Former", "mlp_mixer": "MLP-Mixer"}


@dataclass
class Result:
    """One model: its training in Flax, its logits (n, 10) of all test images in each framework, and how torch went on.

    Args:
      losses: of each step. accuracies: on the test images, after each epoch.
      halfway: the step at which PyTorch takes over.
      continued: losses of PyTorch's steps, with the optimizer's state ("carried") and without ("fresh").
    """

    name: str
    parameters: int
    seconds: float
    losses: list[float]
    accuracies: list[float]
    halfway: int
    labels: np.ndarray
    logits: dict[str, np.ndarray]
    continued: dict[str, list[float]] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return NAMES.get(self.name, self.name)

    @property
    def agrees(self) -> bool:
        """Tell whether every framework puts every image into the same class."""
        first, *others = (logits.argmax(1) for logits in self.logits.values())
        return all(np.array_equal(first, other) for other in others)

    @property
    def difference(self) -> float:
        """Return the largest difference between two frameworks' logits, of all images and classes."""
        every = np.stack(list(self.logits.values()))
        return float((every.max(0) - every.min(0)).max())

    @property
    def margin(self) -> float:
        """Return the least distance between the two largest logits of an image: how close a decision is."""
        second, first = np.sort(self.logits["flax"], axis=1)[:, -2:].T
        return float((first - second).min())

    def accuracy(self, framework: str) -> float:
        return float((self.logits[framework].argmax(1) == self.labels).mean())

    def confusion(self, framework: str) -> np.ndarray:
        """Return how many images of each label (rows) are put into each class (columns)."""
        counts = np.zeros((10, 10), int)
        np.add.at(counts, (self.labels, self.logits[framework].argmax(1)), 1)
        return counts

    def probabilities(self, framework: str) -> np.ndarray:
        powers = np.exp(self.logits[framework] - self.logits[framework].max(1, keepdims=True))
        return powers / powers.sum(1, keepdims=True)

    def deviation(self, which: str) -> float:
        """Return the largest difference between a loss of PyTorch and Flax's at the same step, of the latter."""
        torch = np.array(self.continued[which])
        flax = np.array(self.losses[self.halfway :][: len(torch)])
        return float((np.abs(torch - flax) / flax).max())

    def table(self) -> str:
        """Return accuracies and what differs, for a terminal."""
        lines = [f"  {FRAMEWORKS[name]:13} accuracy {self.accuracy(name):.2%}" for name in self.logits]
        matrices = [self.confusion(name) for name in self.logits]
        same = all(np.array_equal(matrices[0], matrix) for matrix in matrices)
        lines.append(f"  confusion matrices: {'equal' if same else 'NOT equal'} in all three")
        lines.append(f"  class of every one of {len(self.labels):,} images: {'equal' if self.agrees else 'NOT equal'}")
        lines.append(
            f"  logits differ by {short(self.difference)} at most; the closest decision is by {short(self.margin)}"
        )
        return "\n".join(lines)

    def continuation(self) -> str:
        count = len(self.continued["carried"])
        carried, fresh = short(self.deviation("carried")), short(self.deviation("fresh"))
        return (
            f"  PyTorch took {count} steps after step {self.halfway}; its losses differ from Flax's by "
            f"{carried} at most, without the optimizer's state by {fresh}"
        )
