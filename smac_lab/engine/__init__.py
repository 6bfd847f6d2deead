"""Fast execution."""
