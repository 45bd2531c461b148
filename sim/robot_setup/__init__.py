"""Creates a robot folder from an MJCF model and checks robot folders."""
