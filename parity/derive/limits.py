"""State what counts as equal, as a partner and as large when a Table is derived, and how long searches may take.

Limits of one algorithm alone stand where it does.
"""

# What counts as equal: these decide what is proven
EQUAL_OUTPUTS = 1e-9  # relative error of outputs that rounding of float64 explains: a thousand operations in a row
EQUAL_GRADIENTS = 1e-7  # relative difference of gradients that rounding explains: they lose more digits than outputs
ROUNDED_GRADIENTS = 1e-4  # the same, where a model computes partly in float32 and cannot be run without that
NO_GRADIENTS = 1e-12  # gradients below this part of the outputs are zero: no parameter has an effect
REPLAYED_OUTPUTS = 1e-5  # difference of a model's outputs from those of its tape that casts to float32 explain
REPLAYED_FLOAT64 = 1e-7  # the same, where nothing is cast: rounding of float64 in a model that magnifies it
REPLAYED_TABLES = 1e-2  # the same, where it reads tables of float32: rotating by a large angle magnifies rounding
REPLAYED_SHORT = 3e-2  # the same of casts to 16 bits: enough to say where models differ, too much to prove anything
ROUNDING_OUTPUTS = 1e-13  # relative error of outputs that rounding explains though values inside the models differ
FAINT_GRADIENTS = 1e-8  # gradients below this part of the outputs, of a softmax say, have lost digits to rounding
PARTED_MATCH = 1e-6  # difference of values in the matching beyond which models are not proven equal

# Where models part
PARTED_USES = 1e-8  # relative difference of what two uses meet that rounding does not explain
RECOMPUTED = 1e-10  # difference of values recomputed with the right cause, or a thousand times less than before
ROUNDED_TABLES = 1e-6  # difference of tables, relative to their largest value, that rounding to float32 explains
EQUAL_TABLES = 1e-14  # the same, of float64
ROUNDED_FUNCTIONS = 1e-6  # difference of two functions that numbers of float32 explain

# What stands for a place that a mask hides
HIDING = -100.0  # what masks add there at most: e^-100 is nothing beside 1, in float32 too
HUGE = (
    1e6  # absolute value from which any number, of an output too, is that of a mask: random weights give smaller ones
)

# What counts as a partner
PARTNER = 0.05  # distance of columns, relative to their scale, beyond which nothing is a partner
MARGIN = 30  # how much farther than the nearest another partner may be
EXACT = 1e-9  # distances below are rounding
AGREEING_SUMS = 1e-6  # difference of values that a rearranged sum explains
AGREEING_OUTPUTS = 1e-6  # relative difference of outputs up to which a match needs no other one

# CPU time in seconds, of all threads
EFFECT_SECONDS = 5  # for telling apart what has an effect and what has none

# What may be permuted: how much is run for that, alike on every machine
FREE_RUNS = 200  # of a model at most
FREE_OPERATIONS = 1 << 35  # multiplications and other results of single operations in all runs together

# How long a search goes on, alike on every machine: 1 << 30 multiplications and other results take about a second
MATCH_WORK = 4 << 30  # for a match in which no further values agree, before the models are taken to differ
TRIAL_WORK = 2 << 30  # the same for the match with one edit
EDIT_WORK = 8 << 30  # for finding edits with which a match goes further
MEET_WORK = 3 << 19  # what finding the partner of a use takes, beside its elements
ELEMENT_WORK = 1 << 7  # what comparing an element that a use meets takes, as values are sorted
WALKED_PRODUCT = 4  # multiplications of a product in a walk that take as long as one of these

# Where models part: what is computed to find out why, alike on every machine; 1 << 30 take about a second
CAUSE_WORK = 5 << 30  # multiplications and other results of single operations, for the cause of one place
CAUSES_WORK = 20 << 30  # for those of all places, which are looked for in turn while each has one
CALL_WORK = 1 << 17  # what calling an operation takes beside them

# Numbers of elements from which on memory or time counts more than what is simple
LARGE_MODEL = 1 << 25  # elements of a model from which on memory counts more than time
LARGE_GRADIENT = 1 << 22  # elements of a matrix whose gradient is formed in pieces
LARGE_ORIGINS = 1 << 22  # elements on the way, from which on it is not looked up what meets and makes an axis
LARGE_TABLES = 1 << 22  # elements of the tables of one side together, above which none is compared
LARGE_MATRIX = 1 << 21  # elements of a matrix that are cast at once
LARGE_COLUMNS = 1 << 20  # elements of all values on the way, from which on columns are not followed through sums
LARGE_PIECE = 1 << 20  # elements that are moved, mapped or compared at once
LARGE_DRAW = 1 << 20  # elements from which on a new draw is uniform, of float32: a fifth of the time, half the memory
STORED_DRAWS = 3 << 27  # bytes of random weights from which on they are drawn whenever they are read
LARGE_COPY = 1 << 18  # elements from which on a model reads an array without copying it
LARGE_USE = 1 << 17  # values that a use meets, above which it is known by their statistics alone
