"""Task families, one file each; `sim.tasks.registry` lists them."""
