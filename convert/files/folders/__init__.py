"""Checkpoints that are folders (Orbax, torch DCP)."""
