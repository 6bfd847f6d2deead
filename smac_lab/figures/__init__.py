"""Pictures, films, tables and reports; pure functions of what was found."""
