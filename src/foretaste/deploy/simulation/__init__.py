"""Simulated worlds for the promise: no model, only draws; the thresholds, stages and watch are those of a server.

    worlds.py    what happens: errors, judges that are late or share them, complaints, lies, a change
    run.py       one deployment in such a world, and many
    table.py     what was promised and what came, as a table and a page

`foretaste deploy simulate --world NAME` runs them; with a real model that learns: `deploy/simulate.py`.
"""
