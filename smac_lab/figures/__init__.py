"""Pictures, films, tables and reports of experiments."""
