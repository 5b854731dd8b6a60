"""Face detection with MTCNN, exported to one file: `python -m examples.faces`."""
