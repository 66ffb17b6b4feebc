"""Write the map of elements as the lines of a Table.

fold is the way from the map to the Table. facts says what its lines have to say, rows what a line is before blocks
become {i} in blocks; names chooses letters of axes, related reads how arrays are composed, ranges writes parts of
axes, lone finds lines of one block, this_depth those of blocks that {i} does not count, followed states the ranges of
lists that another number follows, exchanged finds parts that stand in another order, transposed square matrices whose
axes do, swapped writes parts that stand in another order, parts tells which parts have one length, and shown gives
others that of the array that shows it. Each of the others writes one kind of line: shared (also of several arrays in
one: {s=query|key|value}, by grids), joined (parts of one array side by side), parted (equal parts in several orders),
blockwise, segments, permuted, terms, summed, buffers, apart.
"""
