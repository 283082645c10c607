"""Tests of the edge gateway, run as its own process against real senders."""
