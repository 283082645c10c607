"""What the demo shows: two tenants with their users, and the studies that their edges send.

The images are real ones from the packages ``pydicom`` and ``pydicom-data``, sent byte for byte as they are there, a
head volume made from the MNI152 template of ``nilearn``, and a phantom whose UIDs are those of the head volume: two
hospitals, one set of identifiers, different pictures.
"""
