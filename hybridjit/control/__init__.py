"""What model code imports: one file per idea."""
