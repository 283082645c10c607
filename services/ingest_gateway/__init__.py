"""The ingest gateway: takes in what edges, integrators and viewers store, and acknowledges only what is durable.

STOW-RS requests are spooled, checked instance by instance, and written as packs into the tenant's own bucket; then
the event is published; only then the sender gets its answer.

Consumes: ``tenants.changed`` (makes the bucket of a new tenant, learns of changed rules).
Produces: ``instances.stored``, ``audit.recorded``.
Tables it writes: reconciliations (how far it is in comparing buckets with the catalog). It reads ``tenants`` (their
rules), and ``packs``, ``instances`` and ``instance_versions`` to find what was stored before and to wait for a person's
upload.
Objects it writes: ``packs/…``, ``quarantine/…``.
"""
