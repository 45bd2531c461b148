"""Images, videos and the interactive viewer."""
