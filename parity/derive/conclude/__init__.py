"""Conclude a match: write its Table, prove it, and explain where the models part.

conclusion leads through it: writing folds a match into lines (summands orders terms of which only the sum counts before
it, shifted compares the rows of tables, and unread_rows finds tables of which the inputs read some rows alone), verdict
says whether they are proven, chosen which partners nothing confirms, unit_lengths which orders of axes no run shows,
and partings lists where the models part.
"""
