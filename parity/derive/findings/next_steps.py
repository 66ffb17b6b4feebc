"""State what to do next where a derivation is not proven, and what no line can write."""

NEXT = (
    "make both models compute the same {}, and derive again; or write the missing lines yourself and pass them by "
    "--table FILE"
)
FACTOR = (
    "if the left model lacks this factor, pass {} by --table FILE, which sets it to 1, and is proven if outputs are "
    "equal then; else "
)
CORRECT = "check the given line, correct it or leave it out, and derive again: what differs was found with this line"
CUT = (
    "look at what changes or cuts gradients there in one model, though outputs are equal: padding_idx, detach, "
    "stop_gradient, requires_grad; then derive again"
)
LINES = (
    "write a line for each missing parameter, or `drop <- NAME` for one that nothing reads, and pass them by "
    "--table FILE"
)
PRODUCT = "it computes a weight from a length g and a direction v, g * v / |v|, which no line can write"
COMPLEX = "each model keeps its own values of them, and no line is found for them"
REAL_PARTS = (
    "store real numbers in both models, as two arrays or with both parts on a last axis (torch.view_as_complex, "
    "lax.complex), and derive again"
)
PLAIN_WEIGHTS = (
    "store plain weights in that model (torch.nn.utils.parametrize.remove_parametrizations, or remove_weight_norm), or "
    "use weight normalization in both; then derive again"
)
MEANT = (
    "if the difference is meant, the Table holds as it is: it translates the weights, and the outputs go on to differ"
)
CHOSEN = (
    "compare the lines of {} with the code, as several left parameters fit them, and pass the right ones by --table "
    "FILE; if these are right, compare what both models compute before their outputs"
)
OWN_ORDER = (
    "return (model, inputs) on the right as well, with the inputs in that model's order",
    "give right_inputs, in the right model's order",
)
