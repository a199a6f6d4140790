"""How a model becomes trainable: one function a file, named like the file."""
