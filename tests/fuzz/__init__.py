"""Coverage-guided fuzzing of everything that reads what strangers send.

``make fuzz`` runs it; ``tests/fuzz/test_replay.py`` gives each target its corpus and its finds again, as tests.
"""
