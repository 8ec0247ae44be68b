"""How an endpoint is asked: what its replies say, how fast it may be asked, what it does not take.

`endpoint.py`, one floor up, puts the three together.
"""

from foretaste.exams.asking.adapting import Adapter
from foretaste.exams.asking.pace import Pace
from foretaste.exams.asking.replies import Reply, ReplyError, is_filtered, message_of, read_reply, wait_of

__all__ = ["Adapter", "Pace", "Reply", "ReplyError", "is_filtered", "message_of", "read_reply", "wait_of"]
