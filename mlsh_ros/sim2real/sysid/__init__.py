"""System identification: what of a robot differs from its model, by its recordings."""
