"""Write the report as an HTML page.

document      fills assets/page.html with the parts below
cards         the verdict, and what differs first in each model
caveats       what the comparisons do not show
matrix        results by model, check and dtype
pair_table    errors of each pair of models
module_table  modules of a user's own models
panels        every plot, with its legend and its value_table
value_table   errors of all arrays of a plot
limit_notes   why limits are as they are
plot          error curves; plot_scale places them, plot_lines draws them
markup        builds elements, and escapes text
"""
