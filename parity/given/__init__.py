"""Read and check what is compared: models, their names, and their inputs.

targets lists what a command line names, and several reads all of its models; random_images draws their inputs. own
wraps a user's model, layer_kinds tells the kinds of its layers, and views lays its arrays out as another model has
them. module_names finds common names of modules; paired_arrays translates arrays by a Table. usage checks arguments of
`parity.compare`, and quoting writes names in sentences.
"""
