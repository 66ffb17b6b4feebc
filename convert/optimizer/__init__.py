"""Convert the state of an optimizer along with the weights: SGD with momentum, Adam and AdamW.

A library's way to store it is data (reading.families). The state is found, read into one neutral State (state), moved,
and laid out as another library stores it; plan leads through these:

    find     reading.optimizers (in a checkpoint), holding (which file), copies (averages of the weights, EMA)
    read     reading: from_optax, from_torch, from_paddle (its steps by powers); what all store alike is in shared
    settle   settling joins what the file stores with what --hyper states; groups keeps torch's groups of parameters
    choose   parameters tells which arrays are parameters, and which are buffers; ties which are one
    move     moving applies the moves of the weights, since a moment has the shape of its parameter; averages does so
             for EMA: there is no second translation. like reads names and order of a new model of the target
    write    writing: to_optax, to_torch, to_paddle; what all lay out alike is in builder

plain_numbers carries plain numbers of the training, as its epoch. account says what goes along and what does not: of a
schedule of the learning rate only paddle's, into paddle. variances reports running variances that frameworks update
differently.
"""
