"""The edge gateway: stands beside the scanners, takes what they send and forwards it to the cloud.

Consumes: C-ECHO and C-STORE (PS3.7, PS3.4 annex B) of every storage SOP class and transfer syntax.
Produces: STOW-RS requests (PS3.18 section 10.5) with an OAuth2 client credential of its own tenant.
Keeps: a spool folder of Part 10 files and a SQLite journal. An instance is acknowledged to the scanner when both are
on disk, and leaves them when the cloud has named its UID and SHA-256.
"""
