"""Learning on the job: what enters a step, what raises an alarm, how it is answered, and what is kept.

`alarm_config.py` holds the limits, `response.py` how an alarm is answered, `admission.py` what feedback may teach,
`held_back.py` the checks that no step learns from, `status.py` what people are told, `keeping.py` old checkpoints.
"""
