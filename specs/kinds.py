"""List the kinds of layers in one table: the arrays of each, their axes, and their names and layout in every library.

A kind alone decides layout, never a shape. flax is a family of two libraries, linen and nnx. Every leaf is optional: a
layer lists those that it lacks.
"""

import re
from collections.abc import Collection, Mapping
from typing import NamedTuple

# framework -> its libraries, the one that ports are written in first
LIBRARIES = {"flax": ("linen", "nnx"), "torch": ("torch",), "paddle": ("paddle",)}
FRAMEWORKS = tuple(LIBRARIES)
PORTED = {framework: libraries[0] for framework, libraries in LIBRARIES.items()}
SUFFIX = {"flax": ".msgpack", "torch": ".safetensors", "paddle": ".pdparams"}  # of the files that its users expect
DTYPES = ("float64", "float32", "bfloat16", "float16")  # that ports compute in
BUFFERS = {"mean", "var", "count"}  # running statistics: saved, but not trained
COLLECTIONS = ("params", "batch_stats")  # of linen: trained leaves, and running statistics

# A row "kind" has patterns of class names; a row "kind.leaf" the axes in the hub, then "name: axes" in each library.
#   i, o inputs (per group) and outputs; h, w, d of a kernel; heads: h dense layers, stacked; v words, d numbers each
#   -  not stored, and nothing is lost      =  as in linen      scalar  no axes      *  the axes that a layer lists
# flax's transposed convolutions are those with transpose_kernel=True, which no class shows: without it their kernels
# are reversed in space. Gates of a cell are i f g o, or r z n; flax's own cells hold each gate apart and sums of the
# biases, so a port's cell there is a module of its own, as for heads, and a Table translates theirs.
TABLE = r"""
kind.leaf                hub        linen                nnx            torch                 paddle
dense                    -          Dense                Linear         (\w*able)?Linear      Linear
dense.kernel             i o        kernel: i o          =              weight: o i           weight: i o
dense.bias               o          bias: o              =              bias: o               bias: o
conv                     -          Conv                 =              Conv2d\w*             Conv2D\w*
conv.kernel              o i h w    kernel: h w i o      =              weight: o i h w       weight: o i h w
conv.bias                o          bias: o              =              bias: o               bias: o
conv1d                   -          Conv                 =              Conv1d\w*             Conv1D\w*
conv1d.kernel            o i w      kernel: w i o        =              weight: o i w         weight: o i w
conv1d.bias              o          bias: o              =              bias: o               bias: o
conv3d                   -          Conv                 =              Conv3d\w*             Conv3D\w*
conv3d.kernel            o i d h w  kernel: d h w i o    =              weight: o i d h w     weight: o i d h w
conv3d.bias              o          bias: o              =              bias: o               bias: o
conv_transpose           -          -                    -              ConvTranspose2d       Conv2DTranspose
conv_transpose.kernel    i o h w    kernel: h w o i      =              weight: i o h w       weight: i o h w
conv_transpose.bias      o          bias: o              =              bias: o               bias: o
conv_transpose1d         -          -                    -              ConvTranspose1d       Conv1DTranspose
conv_transpose1d.kernel  i o w      kernel: w o i        =              weight: i o w         weight: i o w
conv_transpose1d.bias    o          bias: o              =              bias: o               bias: o
conv_transpose3d         -          -                    -              ConvTranspose3d       Conv3DTranspose
conv_transpose3d.kernel  i o d h w  kernel: d h w o i    =              weight: i o d h w     weight: i o d h w
conv_transpose3d.bias    o          bias: o              =              bias: o               bias: o
heads                    -          -                    -              -                     -
heads.kernel             h i o      kernel: h i o        =              weight: h i o         weight: h i o
heads.bias               h o        bias: h o            =              bias: h o             bias: h o
embedding                -          Embed                =              Embedding             Embedding
embedding.table          v d        embedding: v d       =              weight: v d           weight: v d
norm                     -          LayerNorm            =              LayerNorm             LayerNorm
norm.scale               c          scale: c             =              weight: c             weight: c
norm.bias                c          bias: c              =              bias: c               bias: c
rms_norm                 -          RMSNorm              =              \w*RMSNorm            \w*RMSNorm
rms_norm.scale           c          scale: c             =              weight: c             weight: c
group_norm               -          GroupNorm            =              GroupNorm             GroupNorm
group_norm.scale         c          scale: c             =              weight: c             weight: c
group_norm.bias          c          bias: c              =              bias: c               bias: c
batch_norm               -          BatchNorm            =              (Sync)?BatchNorm\w*   (Sync)?BatchNorm\w*
batch_norm.scale         c          scale: c             =              weight: c             weight: c
batch_norm.bias          c          bias: c              =              bias: c               bias: c
batch_norm.mean          c          mean: c              =              running_mean: c       _mean: c
batch_norm.var           c          var: c               =              running_var: c        _variance: c
batch_norm.count         scalar     -                    -              num_batches_tracked: scalar  -
lstm_cell                -          -                    -              LSTMCell              LSTMCell
lstm_cell.input_kernel   g h i      input_kernel: i (g h)   =           weight_ih: (g h) i    weight_ih: (g h) i
lstm_cell.hidden_kernel  g h k      hidden_kernel: k (g h)  =           weight_hh: (g h) k    weight_hh: (g h) k
lstm_cell.input_bias     g h        input_bias: (g h)    =              bias_ih: (g h)        bias_ih: (g h)
lstm_cell.hidden_bias    g h        hidden_bias: (g h)   =              bias_hh: (g h)        bias_hh: (g h)
gru_cell                 -          -                    -              GRUCell               GRUCell
gru_cell.input_kernel    g h i      input_kernel: i (g h)   =           weight_ih: (g h) i    weight_ih: (g h) i
gru_cell.hidden_kernel   g h k      hidden_kernel: k (g h)  =           weight_hh: (g h) k    weight_hh: (g h) k
gru_cell.input_bias      g h        input_bias: (g h)    =              bias_ih: (g h)        bias_ih: (g h)
gru_cell.hidden_bias     g h        hidden_bias: (g h)   =              bias_hh: (g h)        bias_hh: (g h)
array                    -          -                    -              -                     -
array.                   *          : *                  =              : *                   : *
"""
ANY = "*"
VARIANCE = ("batch_norm", "var")  # kind and leaf of a running variance
# Frameworks whose training updates a running variance with the unbiased variance of a batch, which is n / (n - 1) times
# the biased one that the others use; n is the batch times the positions.
UNBIASED = frozenset({"torch"})
GATES = {"lstm_cell": 4, "gru_cell": 3}  # length of the axis g


class Leaf(NamedTuple):
    """An array of a layer as a library stores it: its name, "" for the layer's own, and its axes, as in "h w i o"."""

    name: str
    axes: str


class Kind(NamedTuple):
    """One kind of layer.

    Args:
      axes: {leaf: its axes in the hub}.
      leaves: {library: {leaf: how it is stored, None if it is not}}.
      classes: {library: pattern of the names of classes that are layers of this kind, "" for none}.
    """

    axes: Mapping[str, str]
    leaves: Mapping[str, Mapping[str, Leaf | None]]
    classes: Mapping[str, str]


def _leaf(cell: str) -> Leaf | None:
    name, _, axes = cell.partition(":")
    return None if cell == "-" else Leaf(name, _axes(axes.strip()))


def _axes(cell: str) -> str:
    return "" if cell == "scalar" else cell


def _parse(table: str) -> dict[str, Kind]:
    head, *rows = (re.split(" {2,}", line) for line in table.strip().splitlines())
    axes: dict[str, dict[str, str]] = {}
    leaves: dict[str, dict[str, dict[str, Leaf | None]]] = {}
    classes: dict[str, dict[str, str]] = {}
    for name, hub, *columns in rows:
        cells = {library: columns[0] if cell == "=" else cell for library, cell in zip(head[2:], columns, strict=True)}
        kind, dot, leaf = name.partition(".")
        if not dot:
            classes[kind] = {library: "" if cell == "-" else cell for library, cell in cells.items()}
            axes[kind], leaves[kind] = {}, {library: {} for library in cells}
        else:
            axes[kind][leaf] = _axes(hub)
            for library, cell in cells.items():
                leaves[kind][library][leaf] = _leaf(cell)
    return {kind: Kind(axes[kind], leaves[kind], classes[kind]) for kind in classes}


KINDS = _parse(TABLE)

STATISTICS = BUFFERS | {  # names of running statistics, in the hub and in every library
    stored.name
    for kind in KINDS.values()
    for leaves in kind.leaves.values()
    for leaf, stored in leaves.items()
    if leaf in BUFFERS and stored is not None
}
CONVOLUTIONS = {  # kinds of convolutions -> axes of their images: 4 of (n c h w), as many as their kernels have
    kind: len(each.axes["kernel"].split()) for kind, each in KINDS.items() if kind.startswith("conv")
}
IMAGES = {*CONVOLUTIONS, "batch_norm", "group_norm"}  # kinds whose layers take and return images


def image_axes(kind: str, network: Collection[str]) -> int:
    """Return how many axes the images of a layer, or "" of another module, have: those of convolutions of its kind.

    Args:
      network: the kinds of all its layers: norms have images of 4 axes unless all its convolutions have others.
    """
    others = {CONVOLUTIONS[each] for each in network if each in CONVOLUTIONS}
    return CONVOLUTIONS.get(kind) or (max(others) if others and 4 not in others else 4)


def without_collection(name: str) -> str:
    """Return the name of a linen array without its collection, as `params`; other names as they are."""
    collection, slash, rest = name.partition("/")
    return rest if slash and collection in COLLECTIONS else name


def nnx_name(name: str, lists: bool) -> str:
    """Return the name that nnx has for an array of linen.

    Args:
      name: may have `#` for each number.
      lists: whether a list of modules, which linen spells `blocks_0`, is a level of its own: `blocks/0`.
    """
    inner = without_collection(name)
    return re.sub(r"_(\d+|#)(?=/|$)", r"/\1", inner) if lists else inner
