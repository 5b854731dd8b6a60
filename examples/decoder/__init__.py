"""A language model with a key/value cache, exported with `prefill` and `decode` as methods that share it."""
