"""Record a tape of a model's primitive operations, alike for every framework, and run it on numpy arrays.

The tape and its runs:

    tape                  defines it
    products              computes its products of matrices, and convolutions
    program               runs it
    ancestors             finds the products whose results reach a value
    reason                says why something is not proven, with its remedy
    axis_roles            tells from a run which axes are heads, or parts that the code takes apart

Models, whatever their framework:

    sides                 the one interface to them
    module_side           what torch modules and paddle layers do alike
    call                  how a model is called
    caches                undoes what a run leaves
    cotangents            weights outputs, for their gradients, and tells whether a model has some
    draws                 weights
    inputs                new inputs
    outputs               lists the results of a call, and compares those of two models
    names                 compares names of parameters
    sites                 the module where a parameter is used
    frames                the line of the user's code from which an error comes
    still                 takes inputs that one model alone is given as constants
    precision             gives code the epsilon and limits of float32
    precomputed           finds tables that both compute

torch:

    torch_tape            records modules, and refuses what cannot be recorded
    torch_recorder        records each operation; lets torch decompose what it can, whole LSTMs too
    torch_values          converts tensors, and runs operations
    torch_forms           layouts, arithmetic and convolutions
    torch_decompositions  all other operations, and attention with one scale
    torch_dense           gradients of large linear layers
    torch_norms           epsilons of norms that state none

JAX:

    jax_tape              records linen, nnx and functions
    jax_recorder          gives primitives their forms
    jax_values            computes their results
    jax_groups            grouped convolutions
    jax_wide              makes casts to lower precision void
    jax_dense             gradients of large dense kernels

paddle:

    paddle_tape           records layers; sets recurrent ones in training mode, where their gradients are
    paddle_recorder       wraps each operation, and names its settings
    paddle_values         converts tensors, and runs operations
    paddle_forms          layouts, arithmetic, convolutions and einsums
    paddle_decompositions all other operations: a new one goes here, or into paddle_forms
    paddle_resize         resizes in float64
    paddle_dense          gradients of large linear layers

Several frameworks:

    outer                 gradients by large matrices

Operations get their names and settings from torch_values, paddle_recorder and jax_recorder.

Nothing here knows of a second model but outputs, inputs, still and precomputed.
"""
