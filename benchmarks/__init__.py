"""What hybridjit costs, as ratios against torch in the same run: `python -m benchmarks`."""
