"""Parts of a running deployment that look after the learner and the incumbent."""
