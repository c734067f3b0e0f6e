"""Sources -> documents: files, tables, Hub data sets, and the text that is on every machine."""
