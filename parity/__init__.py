"""Runs ports in any framework, dtype and device, and compares them tap by tap."""
