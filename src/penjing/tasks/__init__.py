"""What a model is asked to do (supervised): one function a file, named like the file."""
