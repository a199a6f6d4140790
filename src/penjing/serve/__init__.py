"""The HTTP face: bundles by name and version on shared bases, answered in packed batches.

registry    versions on disk, pointers such as `live`, canary and shadow shares (files only)
asked       what a request and its answer are to whoever records them; refusals
"""
