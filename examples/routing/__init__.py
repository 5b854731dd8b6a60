"""Three models whose path depends on the data, each exported to one file: `python -m examples.routing`."""
