"""The use cases of identity: sessions, tokens of machines, administration, signing keys, and their audit."""
