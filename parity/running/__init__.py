"""Run models, and record what they compute.

job runs one framework in this process, processes each framework in one of its own; recording states what is recorded,
with arrays under the names that hub shares, and archive stores recordings. ended runs code that may end the program,
training_settings reads momenta and rates of dropout, and provenance states date, command, versions and device.
"""
