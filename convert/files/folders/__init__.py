"""Read and write checkpoints that are folders (Orbax, torch DCP)."""
