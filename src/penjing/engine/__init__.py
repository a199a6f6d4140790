"""The machinery: the loop, its optimizers, scoring."""
