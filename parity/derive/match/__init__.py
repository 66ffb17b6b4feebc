"""Match the parameters of two tapes by the values that meet them.

match searches, attempt takes one way through the choices, and walk runs the right tape, with parameters as symbols.
The result is an array: the left element of each right one.
"""
