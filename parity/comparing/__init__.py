"""Compare models: the room behind `parity.compare` and `python -m parity`.

comparison    compares two or three models
inputs        reads what they are called with
paired_names  gives the modules of two models common names, by a Table
layouts       finds the order of axes of what is compared
about         states what was compared
suite         runs all comparisons of a command line
"""
