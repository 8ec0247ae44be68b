"""Deployment: a learner at work beside an incumbent, trusted step by step, learning from what it is told.

**Deciding and learning** (pure logic, no server): `takeover.py` (which requests the learner may answer) ->
`stages.py` with `analysis.py` (shadow, canary, live, and back) -> `online.py` with `alarms.py` (learning from one
answer a prompt) -> `old_tasks.py` (nothing is promoted that forgets) -> `simulate.py` (all of it against a
simulated world). The guarantee and its limits: docs/deploy-decisions.md.
"""
