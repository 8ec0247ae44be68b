"""The subcommands of `foretaste`, one module each; `cli.py` imports them when they are called."""
