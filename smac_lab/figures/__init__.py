"""Pictures, films, tables and reports."""
