"""What can be wrong with a pack that an event names."""


class UnusablePack(Exception):
    """The pack can't be indexed, now or ever: it is not there, damaged, or not what the event says.

    The text gives the reason without patient data.
    """
