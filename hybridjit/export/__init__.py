"""Out of the process: capture, verification, the report, the file."""
