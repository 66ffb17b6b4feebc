"""Convert the state of an optimizer along with the weights: SGD with momentum, Adam and AdamW.

A library's way to store it is data (families.py). A state is found (holding.py) and read into one neutral `State`
(reading.py), and laid out as another library stores it (writing.py). A moment has the shape of its parameter, so it
takes the same moves as the weights do (moving.py): there is no second translation. plan.py leads through these.

Beside these: what --hyper states (settling.py), torch's groups of parameters (groups.py), averages of the weights such
as EMA (copies.py finds them, averages.py moves them), and what goes along and what does not (account.py): of a schedule
of the learning rate only paddle's, into paddle.
"""
