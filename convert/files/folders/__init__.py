"""Read and write checkpoints that are folders (Orbax, torch DCP); base has what both share.

orbax reads Orbax, and checks shapes and chunks before anything is opened: orbax_tree lists the arrays, orbax_places
tells a folder from a URL, and tensorstore_process reads them by tensorstore_child, in a process with limits;
orbax_writer writes. dcp reads DCP, by dcp_metadata, and dcp_writer writes it.
"""
