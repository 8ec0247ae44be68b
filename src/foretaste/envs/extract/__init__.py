"""`extract`: a customer's message in, one order as JSON out. Start at `env.Extract`.

`order` is the problem object, `words` and `frames` and `voices` hold the language in three banks,
`compose` renders an order in a register.
"""

from foretaste.envs.extract.env import Extract

__all__ = ["Extract"]
