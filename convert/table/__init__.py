"""Plan the conversion of any model by a Table.

    by_table      builds a TablePlan
    plan          defines it
    file          reads the Table
    part          takes from a checkpoint the arrays that the Table names
    laying_out    lays the Table out for the shapes of these arrays
    lengths       reads --set h=12, and compares it with the shapes
    like          copies from another file what no line fills

What does not fit:

    misfit        says why a Table does not fit a file
    gaps          finds blocks that a file lacks
    unread        names the arrays that no line speaks of
"""
