"""What nobody honest sends: instances, STOW-RS bodies and DIMSE peers, each made by a small function.

Each has a name, a class and its fate, which the tests of every door demand: STOW-RS, the DIMSE of edge and cloud.
To send the instances to a running stack::

    python -m tests.support.hostile FOLDER
    lightbox send --edge north FOLDER
"""

from tests.support.hostile.corpus import HostileInstance, hostile_instance, hostile_instances

__all__ = ["HostileInstance", "hostile_instance", "hostile_instances"]
