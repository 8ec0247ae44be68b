"""The file of a data set: `lines.py` brings it to lines of text, `items.py` reads what each line says."""
