"""Define the version of the converter, which its records name, and list the packages that it consists of."""

__version__ = "0.2.0.dev0"  # a literal: asking the installation takes longer than reading a checkpoint's directory
PACKAGES = ("specs", "convert", "ports", "parity")  # each may import itself and what stands before it
