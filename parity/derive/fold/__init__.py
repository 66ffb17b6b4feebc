"""Write the map of elements as the lines of a Table.

fold is the way from the map to the Table. facts says what its lines have to say, rows what a line is before blocks
become {i} in blocks; names chooses letters of axes, axes reads how arrays are composed, lone finds lines of one block.
Each of the others writes one kind of line: lines (also of several arrays in one: {s=query|key|value}, by grids), joined
(parts of one array side by side), blockwise, segments, windows, permuted, terms, summed, buffers.
"""
