"""Compare models: the room behind `parity.compare` and `python -m parity`.

comparison compares two or three models; paired_names names their modules alike by a Table. suite runs every target of a
command line.
"""
