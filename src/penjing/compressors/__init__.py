"""Ways to make a tuned model smaller: one file each, a step of `penjing compress --with "a>b>c"`."""
