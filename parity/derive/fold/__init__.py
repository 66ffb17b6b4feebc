"""Write the map of elements as the lines of a Table: fold runs all the others but buffers.

What lines say:

    facts        which parameters of both sides belong together
    related      how the axes of an array are composed of those of another one
    rows         what a line is before blocks are folded, and the Table of all

One kind of line each:

    shared       parameters that share elements; those of several arrays in one line, {s=query|key|value}
    grids        names of several arrays as one path
    joined       parts of one array, side by side
    parted       equal parts in several orders
    blockwise    parts of one array in each block
    segments     ranges that stand in another order, or between those of other arrays
    permuted     an axis in an order that a file lists
    apart        blocks of an axis whose pieces stand in different orders
    terms        parameters that are added, and vectors of which parts are sums
    summed       sums of parts of vectors
    buffers      counters and tables of integers, for conclude

Axes of a line:

    names        chooses their names
    letters      gives axes that meet in a run one name, a capital one where a shape shows their length
    lists        gives lengths of separate lists of blocks names of their own
    ranges       writes parts of an axis
    swapped      writes parts that stand in another order

Lengths of parts:

    parts        tells which parts have one length in every model
    sources      tells which parameters and inputs they come from
    equal_parts  tells by a run whether parts, or axes of several parameters, have one length
    part_roles   tells by a run whether code uses parts in different ways, so that every model has as many
    shown        gives a part the length of another array

Numbered blocks:

    blocks       folds their rows into {i}
    followed     states the ranges of lists that another number follows
"""
