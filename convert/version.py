"""Define the version of the converter, which its records name."""

__version__ = "0.2.0.dev0"  # a literal: asking the installation takes longer than reading a checkpoint's directory
