"""Record a tape of a model's primitive operations, alike for every framework, and run it on numpy arrays.

The tape and its runs:

    tape       defines the tape; program runs it; reason is why something is not proven, with its remedy
    models     sides hides the framework (module_side, call, caches, cotangents); outputs lists the results of a call
               and compares those of two models
    values     draws (weights of users' models), inputs (new inputs)
    places     sites and frames, in the user's code; names compares names of parameters
    axes       axis_roles (heads or parts), sources (where the parts of an axis come from), equal_parts (whether they
               have one length)
    two sides  still (inputs that one model alone is given), precomputed (tables that both compute)

Who records which framework:

    torch    torch_tape, torch_recorder (lets torch decompose what it can, whole LSTMs too), torch_values, torch_dense,
             torch_state (what can be recorded), torch_attention (with one scale); all else: torch_forms
             (layouts, arithmetic, convolutions) or torch_decompositions
    JAX      jax_tape, jax_groups, jax_wide, jax_dense; its primitives: jax_values (results), jax_recorder (forms)
    paddle   paddle_tape (sets recurrent layers in training mode, where their gradients are), paddle_recorder,
             paddle_names (of settings), paddle_values; a new one: paddle_forms or paddle_decompositions
    both     einsum, outer (gradients by large matrices)

Operations get their names and settings from torch_values, paddle_recorder and jax_recorder.

Nothing here knows of a second model but outputs, inputs, still and precomputed.
"""
