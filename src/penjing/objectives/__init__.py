"""What a model is asked to do without labels: one function a file, named like the file."""
