"""Compare two checkpoints.

compare compares them as models, which plans plans; across compares by a Table, arrays by names alone. All use
array_differences, and plain_values for what is no array; numbered matches two states of torch's optimizers,
averaged two averages of weights. strangers says why two files cannot be compared; text prints the result.
"""
