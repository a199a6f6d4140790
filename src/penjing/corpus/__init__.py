"""Raw text to a corpus that a model can be pretrained on: read, sift, find twins, settle into shards."""
