"""Making a robot folder from an MJCF model, and checking one."""
