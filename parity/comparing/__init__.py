"""Compare models: the room behind `parity.compare` and `python -m parity`.

comparison compares two or three models: inputs reads what they run on, paired_names names their modules alike by a
Table, images finds the layout of flax modules, and about states what was compared. suite runs every target of a command
line.
"""
