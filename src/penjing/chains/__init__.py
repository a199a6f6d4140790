"""Jobs made of jobs."""
