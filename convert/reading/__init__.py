"""Find what a file holds: an architecture in a dialect, weights, the state of an optimizer, and what is neither.

    recognise        lists what a file may be, likeliest first
    readings         finds where in a file the weights lie
    nesting          ranks such places: live weights before averages
    spelling         respells names as arrays are usually named
    own_names        recognises paddle's own names of parameters

Weights that are stored more than once, or in parts:

    named_copies     finds averages and earlier copies by their names
    exchanged        knows tools that save weights and average under each other's name
    replicas         finds arrays that are stored once for each device
    masters          finds float32 masters of half-precision weights
    rounded          compares these masters with the weights
    parametrized     recognises weights that only arithmetic puts together

Beside the weights:

    optimizers       finds the state of an optimizer
    families         lists how each library names this state
    aside            names what is neither
    counting         counts the parameters of a model of no known architecture
    weights_alone    finds the weights in a checkpoint whose names and sizes alone are wanted (--like)
"""
