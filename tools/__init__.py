"""Tools of the developers: checks and generators."""
