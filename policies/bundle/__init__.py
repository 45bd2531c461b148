"""What is deployed: ONNX skills and masters with a manifest, written, checked and run."""
