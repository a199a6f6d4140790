"""Whether rows that come now are like the rows that a model was proved on: two-sample tests and a verdict."""
