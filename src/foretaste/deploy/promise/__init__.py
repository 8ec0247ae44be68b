"""What a deployment promises, and the parts that keep it: but for review.py, pure functions without a database.

    statement.py     the promise, typed: who judges what, when, how delta is spent, what it does not cover
    calibration.py   the next threshold of a checkpoint, with its part of delta
    watch.py         has the served error risen? how many served answers to check meanwhile
    volunteers.py    feedback that nobody asked for: it may stop things, never start them
    review.py        the checks that wait for a person, where people judge
    plan.py          all of it in figures, before anything is served

Next: `takeover.py` for the threshold itself, `analysis.py` for what a stage makes of it.
"""
