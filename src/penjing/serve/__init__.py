"""The HTTP face: bundles by name and version on shared bases, answered in packed batches.

registry    versions on disk, pointers such as `live`, canary and shadow shares (files only)
asked       what a request and its answer are to whoever records them; refusals
opened      a version opened, or refused;  golden  inputs whose answers must stay what they were
lanes       bundles that share a trunk's pass;  models  which version answers, what is in memory
job         a request under way;  batcher  the worker and its passes;  talker, speaking  texts being said
service     all of these for one process;  keyring, limits, audit, metrics  what belongs to it
explain     which words an answer came from
shared      what several such processes have in common: rates and metrics
app         the routes: guard (who may), predict, openai, open_inference, admin, page
"""
