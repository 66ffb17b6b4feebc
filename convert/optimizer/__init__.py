"""Convert the state of an optimizer along with the weights: SGD with momentum, Adam and AdamW.

A library's way to store it is data (families.py). A state is found (holding.py) and read into one neutral `State`
(reading.py), and laid out as another library stores it (writing.py). A moment has the shape of its parameter, so it
takes the same moves as the weights do (moving.py): there is no second translation. plan.py leads through these.
"""
