"""Convert the state of an optimizer along with the weights: SGD with momentum, Adam and AdamW.

How a library stores it is data (reading.families). The state is found, read into one neutral State, moved, and laid out
as another library stores it:

    plan             leads through these steps
    state            defines State

Find and read:

    holding          finds the file that holds the state; reading.optimizers finds it in a checkpoint
    copies           finds averages of the weights (EMA, SWA)
    reading          reads a state by one of from_optax, from_torch and from_paddle
    shared           reads what all libraries store alike
    powers           counts steps by the powers of betas that paddle stores

Complete:

    settling         joins what the file stores with what the user states by --hyper
    groups           keeps torch's groups of parameters
    parameters       tells which arrays are parameters, and which are buffers
    ties             tells which arrays are one parameter
    like             reads names and order of a new model of the target

Move and write:

    moving           moves the moments as the weights are moved: each has the shape of its parameter
    averages         moves averages of the weights so
    writing          lays a state out by one of to_optax, to_torch and to_paddle
    builder          lays out what all libraries store alike

Report:

    account          states what goes along; of a schedule of the learning rate only paddle's, into paddle
    plain_numbers    carries plain numbers of the training, such as its epoch
    scalers          says how loss scalers of mixed precision go on
    variances        reports running statistics that frameworks update differently
"""
