"""Convert the state of an optimizer along with the weights: SGD with momentum, Adam and AdamW.

A library's way to store it is data (kinds.py). Reading turns it into one neutral `State` (reading.py), and writing lays
that out as another library stores it (writing.py). A moment has the shape of its parameter, so it takes the same moves
as the weights do (plan.py): there is no second translation.
"""
