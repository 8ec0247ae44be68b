"""How a tokenizer's chat template is rendered (`rendering.py`) and its text tokenised (`control_tokens.py`).

`models/conversation.py` puts both together; everyone else uses that.
"""
