"""Plan the conversion of any model by a Table.

by_table builds plan.TablePlan: file reads the Table, part takes from a checkpoint the arrays that it names, laying_out
lays it out for their shapes, lengths reads --set h=12, like copies from another file what no line fills. misfit says
why a Table does not fit a file, gaps finds blocks that it lacks, and unread names the arrays that no line speaks of.
"""
