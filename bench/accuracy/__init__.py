"""How far elementary functions, losses and means are from the exact values; `__main__.py` says how to ask."""
