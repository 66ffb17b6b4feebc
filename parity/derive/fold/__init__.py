"""Write the map of elements as the lines of a Table.

fold is the way from the map to the Table; the other files each write one kind of line.
"""
