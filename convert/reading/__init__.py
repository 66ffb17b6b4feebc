"""Find what a file holds: an architecture in a dialect, weights, the state of an optimizer, and what is neither.

recognise lists what a file may be; readings finds where the weights lie: nesting ranks places (live ones before
averages, which named_copies finds; exchanged lists tools that save each under the other's name), spelling reads names.
own_names recognises paddle's own. replicas, masters and parametrized find weights that are stored more than once or in
parts. optimizers finds the state of an optimizer, by the names that families lists for each library. weights_alone
finds the weights in a training checkpoint of which names and sizes alone are wanted (--like). aside names what is
neither, and counting counts parameters without a known architecture.
"""
