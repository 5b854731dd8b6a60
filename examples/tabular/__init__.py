"""A network for tables, trained through ``torch.compile(backend="hybridjit")``, cross-validated."""
