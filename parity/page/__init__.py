"""Write the report as an HTML page.

document fills assets/page.html with its parts: matrix, panels, cards, caveats, limit_notes, plot (plot_scale,
plot_lines, plot_legend), value_table, pair_table, module_table. markup joins and escapes text.
"""
