"""Makes skills of policies that were trained elsewhere."""
