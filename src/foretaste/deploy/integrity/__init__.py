"""Whether a deployment's records are what was written: kept heads, digests of judgements, keys as the log has them.

The chain itself is `deploy/audit.py`. `log_reader.py` reads what it says, `kept_heads.py` keeps its head in a second
place, `digests.py` chains judgements, `checks.py` holds all tables against the log, `opening.py` refuses what was
edited.
"""
