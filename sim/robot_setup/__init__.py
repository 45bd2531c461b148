"""Creates a robot folder from an MJCF model or a URDF, and checks robot folders."""
