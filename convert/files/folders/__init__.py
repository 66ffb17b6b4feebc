"""Read and write checkpoints that are folders (Orbax, torch DCP).

    base                   what both formats share

Orbax:

    orbax                  reads it, and checks shapes and chunks before anything is opened
    orbax_writer           writes it
    orbax_tree             lists the arrays, and where each is stored
    orbax_places           tells a folder from a URL
    tensorstore_process    reads arrays in a process of its own, with limits
    tensorstore_child      is the script of this process

Torch DCP:

    dcp                    reads it
    dcp_metadata           parses its `.metadata`
    dcp_writer             writes it
"""
