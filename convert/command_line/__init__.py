"""Run the commands of `python -m convert`: imports any floor, and only __main__ imports it.

parsers lists the commands and what each takes; conversion is the command that converts: one_file each of its files,
by route_conversion or table_conversion, with what optimizer_request reads. commands has all others. routes and
source_paths read what the user typed; outcome and dry_run print for people.
"""
