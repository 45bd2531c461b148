"""Pictures, videos and the interactive viewer."""
