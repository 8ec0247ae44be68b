"""From ledger to one self-contained HTML page. Start at `page.write_report`.

gather.py reads a run's records; charts.py draws SVG; episodes.py picks and packs episodes for the
viewer; words.py writes numbers and sentences; templates/ holds the page, its style and its script.
Nothing here knows a model or an environment: a page can be made anew wherever the ledger is.
"""
