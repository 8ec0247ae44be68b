"""What a deployment promises, and the pure parts that keep it: nothing here touches a database or the network.

    statement.py     the promise, typed: who judges what, when, how delta is spent, what it does not cover
    calibration.py   the next threshold of a checkpoint, with its part of delta
    watch.py         has the served error risen? how many served answers to check meanwhile
    volunteers.py    feedback that nobody asked for: it may stop things, never start them
    plan.py          all of it in figures, before anything is served

Next: `takeover.py` for the threshold itself, `analysis.py` for what a stage makes of it.
"""
