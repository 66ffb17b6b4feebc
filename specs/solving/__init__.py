"""Match a Table with arrays that are known by name and shape.

binding does both steps: matching finds the names, by the blocks that ranges counts, and sizes solves the lengths of
axes for each line, as env holds it; open_axes says which lengths stay open, and heads which given ones contradict each
other. stating writes lengths into a Table, and wrapped finds where in a tree arrays lie.
"""
