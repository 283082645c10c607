"""The judge of what is lost: two hospitals send, something fails, and all that was acknowledged must be there.

``make chaos RUNS=200 SEED=1`` runs it on a stack of its own; ``tests/system/test_chaos.py`` runs a part of it.
"""
