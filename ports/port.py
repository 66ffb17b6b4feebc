"""Define a port: one architecture of ours in one framework, called with images, behind that framework's Runner."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

import specs
from convert.errors import UsageError
from specs.config import as_dict
from specs.kinds import DTYPES, IMAGES, PORTED, image_axes
from specs.layer import Layer
from specs.notation.paths import pattern
from specs.preprocessing import UNKNOWN, Known

from .frameworks import DEVICES, PortError, network, require_name, unfit
from .images import checked
from .model import Model
from .runners.inputs import OUTPUT, Inputs
from .runners.records import Drop, Gradients, Optimizer, Tap, Taps, Training, outputs
from .structure import first_change

if TYPE_CHECKING:
    from convert.config.settings import Settings

    from .source import Source


class Port(Model):
    """One architecture in one framework, with weights, in one dtype, on one device.

    Args:
      tensors: (name, array) of everything that the framework's checkpoint of this architecture holds.
    """

    assumed: tuple[str, ...] = ()  # Config fields that change the outputs and that nobody knows of these weights
    supplied: tuple[str, ...] = ()  # its checkpoint's arrays that began at 0, as no source states them
    source: Source | None = None  # the checkpoint that it was loaded from
    altered: str = ""  # why the checkpoint is not what its record describes; "" if it is, or has none
    # what suggests the values of fields that nothing states; see record.SUGGESTED
    suggested: Mapping[str, str] = MappingProxyType({})
    _preprocessing: Known = UNKNOWN

    def __init__(
        self,
        framework: str,
        architecture: str,
        config: Any,
        tensors: Iterable[tuple[str, np.ndarray]],
        dtype: str,
        device: str,
    ):
        require_name("dtype", dtype, DTYPES)
        require_name("device", device, DEVICES)
        self.framework, self.architecture, self.config = framework, architecture, config
        self.spec = specs.get(architecture)
        home = importlib.import_module(f"ports.runners.{PORTED[framework]}")
        self.runner = home.Runner.build(network(architecture, framework), config, tensors, dtype, device)
        self._taps = Taps(self._tap, self._image_axes)
        self._built = self.runner.structure()

    def __repr__(self) -> str:
        from convert.config.variants import variant_of

        variant = variant_of(self.architecture, self.config)
        what = f"{self.architecture} {variant or '(no official variant)'}"
        return f"Port({what}, {self.framework}, {self.dtype}, {self.device})"

    @property
    def model(self) -> Any:
        """Return the framework's own model: an nn.Module, an nn.Layer, or linen's module and variables."""
        return self.runner.model

    @model.setter
    def model(self, model: Any) -> None:
        """Replace the model by one of the same kind, such as linen's module with trained variables."""
        self.runner.replace(type(self.runner.model)(*model) if isinstance(model, tuple) else model)

    @property
    def preprocessing(self) -> Known:
        """Return what is known of the preprocessing of images."""
        return self._preprocessing

    @preprocessing.setter
    def preprocessing(self, stated: Known | Mapping[str, Any]) -> None:
        """Set what is known, as a mapping of fields of Preprocessing. Raises: UsageError for fields that do not fit."""
        from convert.config.settings import preprocessing

        self._preprocessing = stated if isinstance(stated, Known) else preprocessing(stated)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Run inference. images: (n, c, h, w) -> logits (n, classes); bfloat16 results come back as float32."""
        return self.outputs(images)[OUTPUT]

    def preprocess(self, pictures: Any, *, native: bool = False, **stated: Any) -> np.ndarray:
        """Turn pictures into images for this port, the same in every framework: resize, crop the centre, normalise.

            logits = port(port.preprocess(PIL.Image.open("cat.jpg").convert("RGB")))

        Args:
          pictures: a PIL image; a uint8 array (h, w, channels), or (h, w) for one channel; a batch of equal ones as one
            array more; or a list of any of these, whose sizes may differ.
          native: return the layout that `port.model` takes, (n, h, w, c) in flax, and not the one that the port takes.
          stated: fields of specs.preprocessing.Preprocessing for this call, above those of `port.preprocessing`.
        Returns: a NumPy array, float32, (n, c, h, w), for `torch.from_numpy` as well; n = 1 for a single picture.
        Warns of fields that are assumed of these weights.
        Raises: UsageError for fields that are not known or do not fit; ImagesError for what are no pictures.
        """
        from convert.config.pixels import sized

        from .preprocess import for_network

        known = sized(self.preprocessing, self.config, self.suggested)
        images = for_network(pictures, known, stated, self.spec, self.config)
        return images if native and self.framework == "flax" else np.ascontiguousarray(images.transpose(0, 3, 1, 2))

    def outputs(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Return everything that the network returns, by name: "output"."""
        return self.runner(self._checked(images))

    def taps(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Return outputs of every layer and block in execution order, under the names that all frameworks share.

        Feature maps come as (n, c, h, w) from every framework; a module called twice appears again as "name#1", and
        what a module returns beside its first output as "name:1".
        """
        return dict(outputs(tap for tap in self.trace(images) if tap.name != OUTPUT))

    def trace(self, images: np.ndarray, feed: Mapping[str, Sequence[np.ndarray]] | None = None) -> list[Tap]:
        """Return every call of a layer or block, in the order in which they end; the network's own is "output".

        Args:
          feed: inputs to run the named calls on, in place of their own (which the taps still record): errors do not
            accumulate, and each layer answers for itself alone.
        """
        return self.runner.trace(self._checked(images), self._taps, feed)

    def tap_names(self) -> list[str]:
        """Return paths of the layers, and of the modules around them: of blocks, and of norms written by hand."""
        paths = [layer.path for layer in self.layers()]
        around = dict.fromkeys(path.rsplit(".", depth)[0] for path in paths for depth in range(1, path.count(".") + 1))
        return [*paths, *filter(self._tap, around)]

    def gradients(self, images: np.ndarray) -> Gradients:
        """Return the loss mean(logits ** 2) in training mode, its gradients, and the running statistics after it."""
        return self.runner.gradients(self._checked(images))

    def train(self, batches: Sequence[np.ndarray | Inputs], optimizer: Optimizer) -> Training:
        """Take a step a batch (n, c, h, w) on loss mean(logits ** 2); the port itself stays as it is."""
        return self.runner.train([self._checked(images) for images in batches], optimizer)

    def dropout_calls(self, images: np.ndarray, seed: int) -> list[Drop]:
        """Return every call of dropout with a rate above 0 in one training-mode pass, in execution order."""
        return self.runner.dropout_calls(self._checked(images), seed)

    def dropout_rates(self) -> list[str]:
        """Return Config fields that make training random."""
        fields = vars(self.config)
        return [name for name, value in fields.items() if "drop" in name and isinstance(value, float) and value > 0]

    def is_random(self, images: np.ndarray | Inputs, training: bool) -> bool:
        """Tell whether the outputs depend on random numbers in evaluation mode; in training that is dropout's business.

        A port in flax gets none there. On a GPU, sums need not repeat to the last bit: nothing can be told.
        """
        can_draw = not training and self.framework != "flax" and self.device == "cpu"
        return can_draw and self.runner.is_random(self._checked(images), training)

    def with_dtype(self, dtype: str) -> Port:
        """Return a copy of the model as it is now, its user's changes included, that computes in another dtype."""
        require_name("dtype", dtype, DTYPES)
        return self._with(self.runner.cast(dtype))

    def save(self, path: str | os.PathLike[str], force: bool = False) -> dict[str, Any]:
        """Write the model as it is now, with its configuration in the record; the suffix picks the format.

        Every module's class, attributes, functions and hooks must be those that the port was built with: else the
        record would state another network. Functions that were patched for the whole process, such as one of torch,
        are not seen: a port built anew runs them as well.
        Batch counters that no file stated and that are still 0 are marked in the record, as a conversion marks them.

        Returns: the record.
        Raises: ConvertError where the target cannot be written, or exists and `force` is not set; UsageError where a
          module was replaced or changed.
        """
        from .saving import save

        if change := first_change(self._built, self.runner.structure()):
            what = f"{os.fspath(path)}: the model's modules are no longer those of its configuration: {change}"
            remedy = "state what they are, ports.save(port.model, path, config=...), or undo what no configuration has"
            raise UsageError(f"{what}: {remedy}")
        return save(self.model, path, self.settings(), force=force, supplied=self.supplied)

    def check_arrays(self) -> None:
        """Check that the port of a page from outside has the page's arrays and no others; for those here the tests do.

        Raises: PortError that lists what does not fit.
        """
        if specs.folder(self.architecture) is None:
            return  # tracing a network takes up to a second
        images = np.zeros((1, *self.spec.input_shape(self.config)), np.float32)
        if misfits := self.runner.misfits(Inputs(images)):
            raise PortError(unfit(self.framework, network(self.architecture, self.framework)), misfits)

    def settings(self) -> Settings:
        """Return what is known of the model. Its arrays tell the number of classes: it may have another head by now."""
        from convert.config.settings import Settings

        values = {name: value for name, value in as_dict(self.config).items() if name != "classes"}
        assumed, known = frozenset(self.assumed), self.preprocessing
        return Settings(values, assumed, self.architecture, preprocessing=known, suggested=self.suggested)

    def layers(self) -> list[Layer]:
        """Return every layer with its arrays."""
        return list(self.spec.layers(self.config))

    def shared(self, name: str) -> str:
        """Return the name that all frameworks have for a layer or array of `layers`."""
        return name

    def _checked(self, images: Any) -> Inputs:
        self.runner.ready()
        return checked(images, self.spec, self.config)

    def _tap(self, path: str) -> str | None:
        return OUTPUT if path == "" else path if pattern(path) in self._tapped[0] else None

    def _image_axes(self, name: str) -> int:
        """Return how many axes the images in and out of a tap have; 0 if it has none."""
        return 4 if name == OUTPUT else self._tapped[1].get(pattern(name), 0)

    @cached_property
    def _tapped(self) -> tuple[set[str], dict[str, int]]:
        """Return (names that are taps, {feature map: axes of its images}), as patterns with "#" for numbers."""
        layers = list(self.spec.layers(self.config))
        paths = {pattern(layer.path) for layer in layers}
        parents = {path.rsplit(".", depth)[0] for path in paths for depth in range(1, path.count(".") + 1)}
        kinds = {layer.kind for layer in layers}
        maps = dict.fromkeys(self.spec.feature_maps, image_axes("", kinds))
        maps |= {pattern(layer.path): image_axes(layer.kind, kinds) for layer in layers if layer.kind in IMAGES}
        parents -= {parent for parent in parents if any(path.startswith(parent + ".#") for path in paths)}  # lists
        return paths | parents | set(self.spec.feature_maps), maps
