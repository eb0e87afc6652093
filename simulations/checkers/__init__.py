"""Checkers: one promise a module. Each looks at the log that is left and at what clients saw."""
