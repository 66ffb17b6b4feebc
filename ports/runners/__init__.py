"""Call, trace, differentiate and train models of any framework, and read their arrays: one Runner a framework.

base defines the Runner, records what its runs return, and inputs what a model is called with. torch, paddle, linen and
nnx are the four, and function serves users' JAX functions, which have no modules. What two of them share:

    hooked      torch and paddle: a model stores its arrays, and hooks on its modules trace it
    functional  linen and nnx: a model is a pure function of its parameters and inputs, which may draw random numbers;
                modes puts it into training, jax_modules lists its modules, jax_trees its arrays, and jax_optimizers
                builds optax's
    tracing     all: calls of modules become taps; trees names the arrays in nested arguments and results

misfits compares the arrays of a port with those of its page. torch_ties copies torch modules with their ties.
paddle_norms computes Paddle's normalisation exactly in float64, which its kernels do not.
"""
