"""Write the map of elements as the lines of a Table: fold runs all the others but buffers.

what lines say     facts (which parameters of both sides belong together), related (how axes are composed of each
                   other)
one kind of line   shared (parameters that share elements; several arrays in one line, {s=query|key|value}, by grids),
                   joined (parts of one array, side by side), parted (equal parts in several orders), blockwise,
                   segments, permuted, apart, terms and summed (sums), buffers (counters and tables of integers, for
                   conclude)
axes of a line     names chooses names of axes, letters one name for axes that meet in a run; ranges writes parts of an
                   axis, swapped parts that stand in another order
lengths of parts   parts tells which parts have one length; shown gives a part the length of another array
numbered blocks    rows is what a line is before blocks folds it into {i}; followed states the ranges of lists that
                   another number follows
"""
