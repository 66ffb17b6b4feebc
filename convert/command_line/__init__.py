"""Run the commands of `python -m convert`: imports any floor, and only __main__ imports it.

    parsers              lists the commands, and what each takes
    conversion           runs the command that converts
    one_file             converts one file
    route_conversion     does so by a route
    table_conversion     does so by a Table
    commands             runs all other commands

What the user typed:

    routes               reads a route, such as google2torch
    source_paths         lists the files that are meant
    optimizer_request    reads what is asked of the state of an optimizer

What is printed:

    outcome              what a user should know of a conversion
    dry_run              the steps of a plan
"""
