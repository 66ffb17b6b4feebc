"""Conclude a match: write its Table, prove it, and explain where the models part.

conclusion    runs all the others, and returns the Derivation
writing       folds the match into the lines of a Table
summands      orders terms of which only the sum counts, before the lines are written
rows          finds tables whose rows stand elsewhere in the other model, or are read in part
verdict       proves the Table, or says why it is not proven
one_sided     lists tables whose rows the right side alone adds
chosen        lists partners that nothing confirms
two_places    lists parameters whose order of axes is seen on two places alone
unit_lengths  lists parameters whose order of axes no run shows
unit_axes     tells what layouts do with axes of length 1, for this
partings      lists where the models part, and gives uses there their differences
"""
