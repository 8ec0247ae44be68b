"""Speed side by side with peers: `make bench`. Start reading at `__main__.py`."""
