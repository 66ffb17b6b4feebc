"""The one table of kinds: every library's layers are what it says, and it is read both ways without loss."""

import importlib
from collections import OrderedDict
from functools import partial

import numpy as np
import pytest

from parity.causes.hypotheses import HYPOTHESES
from parity.given.own import wrap
from specs.dialects import PORTS, UNUSED, bind, place
from specs.init import draw, sample
from specs.kinds import FRAMEWORKS, IMAGES, KINDS, LIBRARIES
from specs.layer import Layer, array, embedding, gru_cell, lstm_cell, parameters
from specs.notation.axes import names, parse_axes
from specs.table import Table

from .conftest import needs

SIZES = dict(zip("iohwdvckg", (2, 3, 5, 7, 11, 13, 17, 3, 4), strict=True))
COLUMNS = [library for libraries in LIBRARIES.values() for library in libraries]


def sized(kind, without=()):
    """A layer of a kind, every axis of which has another length."""
    return array("a", m=2, d=3) if kind == "array" else Layer("a", kind, SIZES, without)


@pytest.mark.parametrize("kind", KINDS)
def test_every_library_stores_the_same_elements(kind):
    about = KINDS[kind]
    for library in COLUMNS:
        assert about.leaves[library].keys() == about.axes.keys()
        for leaf, stored in about.leaves[library].items():
            if stored is not None:
                assert sorted(names(parse_axes(stored.axes.replace("*", "")))) == sorted(
                    about.axes[leaf].replace("*", "").split()
                )
            else:
                assert leaf == "count"  # what only torch keeps, and nothing depends on
        stored_names = [stored.name for stored in about.leaves[library].values() if stored is not None]
        assert len(stored_names) == len(set(stored_names))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_there_and_back(kind, framework):
    for parameter in parameters([sized(kind)]):
        theirs = place(parameter, PORTS[framework])
        if theirs is None:
            continue
        table = Table((bind(place(parameter, None), theirs, UNUSED, 1).line,))
        values = np.arange(np.prod(parameter.shape)).reshape(parameter.shape)
        there = table.apply({parameter.name: values})
        assert {name: array.shape for name, array in there.items()} == {theirs.name: theirs.shape}
        assert np.array_equal(table.reverse().apply(there)[parameter.name], values)


@pytest.mark.parametrize("kind", KINDS)
def test_every_leaf_is_optional(kind):
    for leaf in KINDS[kind].axes:
        held = [p.leaf for p in Layer("a", kind, SIZES, (leaf,)).parameters()]
        assert held == [other for other in KINDS[kind].axes if other != leaf]


def test_other_tables_of_kinds_name_kinds():
    assert HYPOTHESES.keys() - {""} <= KINDS.keys()  # "": a layer of no kind, which may be a norm
    assert KINDS.keys() >= IMAGES


MODULES = {  # kind -> (a module of each library, what its Layer has left out)
    "dense": ("Dense(3, use_bias=False)", "Linear(2, 3, use_bias=False, rngs=R)", "Linear(2, 3, bias=False)",
              "Linear(2, 3, bias_attr=False)", {"i": 2, "o": 3}, ("bias",), (1, 2)),
    "conv1d": ("Conv(3, (5,))", "Conv(2, 3, (5,), rngs=R)", "Conv1d(2, 3, 5)", "Conv1D(2, 3, 5)",
               {"i": 2, "o": 3, "w": 5}, (), (1, 2, 7)),
    "conv3d": ("Conv(3, (5, 1, 2))", "Conv(2, 3, (5, 1, 2), rngs=R)", "Conv3d(2, 3, (5, 1, 2))",
               "Conv3D(2, 3, (5, 1, 2))", {"i": 2, "o": 3, "d": 5, "h": 1, "w": 2}, (), (1, 2, 7, 7, 7)),
    "embedding": ("Embed(5, 3)", "Embed(5, 3, rngs=R)", "Embedding(5, 3)", "Embedding(5, 3)",
                  {"v": 5, "d": 3}, (), None),
    "norm": ("LayerNorm(use_bias=False)", "LayerNorm(4, use_bias=False, rngs=R)", "LayerNorm(4, bias=False)",
             "LayerNorm(4, bias_attr=False)", {"c": 4}, ("bias",), (1, 4)),
    "lstm_cell": (None, None, "LSTMCell(2, 5)", "LSTMCell(2, 5)", {"g": 4, "h": 5, "i": 2, "k": 5}, (), (1, 2)),
    "gru_cell": (None, None, "GRUCell(2, 5, bias=False)", "GRUCell(2, 5)", {"g": 3, "h": 5, "i": 2, "k": 5},
                 {"torch": ("input_bias", "hidden_bias")}, (1, 2)),
    "rms_norm": ("RMSNorm()", "RMSNorm(4, rngs=R)", "RMSNorm(4)", None, {"c": 4}, (), (1, 4)),
    "group_norm": ("GroupNorm(2)", "GroupNorm(4, 2, rngs=R)", "GroupNorm(2, 4)", "GroupNorm(2, 4)",
                   {"c": 4}, (), (1, 4, 3, 3)),
}  # fmt: skip


@pytest.mark.parametrize("kind", MODULES)
@pytest.mark.parametrize("library", COLUMNS)
def test_a_librarys_own_layer_is_of_its_kind(library, kind):
    """Its class and the names and shapes of its arrays are read as this kind, with these sizes."""
    *texts, sizes, without, shape = MODULES[kind]
    text = texts[COLUMNS.index(library)]
    if text is None:
        return  # the library has no such layer, which the table's pattern allows users to write
    needs("flax" if library in LIBRARIES["flax"] else library)
    inputs = np.zeros(shape, np.float32) if shape else np.zeros((1, 2), np.int32)
    (layer,) = wrap(_module(library, text, inputs), (inputs,)).layers()
    left_out = without.get(library, ()) if isinstance(without, dict) else without
    assert (layer.path, layer.kind, dict(layer.sizes), layer.without) == ("a", kind, sizes, left_out)


@pytest.mark.parametrize(
    "layer", [embedding("a", 5, 3), lstm_cell("a", 2, 5), gru_cell("a", 2, 5)], ids=lambda layer: layer.kind
)
def test_a_short_form_has_the_sizes_of_its_kind(layer):
    *_, sizes, _, _ = MODULES[layer.kind]
    assert layer.sizes == sizes
    assert [parameter.leaf for parameter in layer.parameters()] == list(KINDS[layer.kind].axes)


@pytest.mark.parametrize("short", [lstm_cell, gru_cell])
def test_a_cell_without_biases_has_its_kernels(short):
    leaves = [parameter.leaf for parameter in short("a", 2, 5, bias=False).parameters()]
    assert leaves == ["input_kernel", "hidden_kernel"]


def _module(library, text, inputs):
    """A model whose only module is "a"; flax layers get channels last, which runners see to for images alone."""
    if library in ("torch", "paddle"):
        nn = importlib.import_module(f"{library}.nn")
        layer = eval(text, vars(nn))
        return nn.Sequential(OrderedDict(a=layer)) if library == "torch" else nn.Sequential(("a", layer))
    import jax
    from flax import linen, nnx

    def last(x):
        return x.transpose(0, *range(2, x.ndim), 1) if x.ndim in (3, 5) else x

    if library == "linen":

        class Net(linen.Module):
            @linen.compact
            def __call__(self, x):
                words = text[:-1].replace("(", ", ", 1)
                return eval(f"partial({words})(name='a')", {**vars(linen), "partial": partial})(last(x))

        x = jax.numpy.asarray(inputs.transpose(0, 2, 3, 1) if inputs.ndim == 4 else inputs)
        return Net(), Net().init(jax.random.key(0), x)

    class Wrapped(nnx.Module):
        def __init__(self):
            self.a = eval(text, {**vars(nnx), "R": nnx.Rngs(0)})

        def __call__(self, x):
            return self.a(last(x))

    return Wrapped()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_can_be_drawn(kind):
    """Initial values in each way, as the spec's arrays are: of their shape, finite, and not all alike but by intent."""
    for parameter in parameters([sized(kind)]):
        for values in (draw(parameter, 0), sample(parameter, 0)):
            assert values.shape == parameter.shape
            assert np.isfinite(values).all()
        assert sample(parameter, 0).size == 1 or sample(parameter, 0).std() > 0
