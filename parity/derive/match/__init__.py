"""Match the parameters of two tapes by the values that meet them.

match searches, attempt takes one way through the choices, and walk runs the right tape, with parameters as symbols.
The result is an array: the left element of each right one.

    the left side        uses lists what each parameter meets, by columns (statistics of it) and roles (what results are
                         for: operations, met_columns); symbols, stepped: numbers of elements
    the way              choices of partners and the way back; analogy to earlier blocks; hints of the user; delayed
                         functions of parameters
    one kind of use      products (of matrices; patches of a convolution are rows of one), batches, regroup (inputs of
                         products that one side joins); factors (and terms); biases; following, where values differ;
                         origins (of channels), added (to which others)
    what nothing shows   complete, siblings
    where nothing fits   advice
"""
