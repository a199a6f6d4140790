"""What changes a training step: one function a file, named like the file."""
