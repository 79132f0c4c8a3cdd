"""A study's answer made readable: one HTML file in two languages, its figures, tables and a terminal summary."""
