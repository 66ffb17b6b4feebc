"""Compare models: the room behind `parity.compare` and `python -m parity`.

comparison compares two or three models: inputs reads what they run on, paired_names names their modules alike by a
Table, layouts finds the order of axes of what is compared, and about states what that was. suite runs every target of a
command line.
"""
