"""Keeps the catalog: patients, studies, series, instances, and the metadata documents of series.

Consumes: ``instances.stored`` (group ``indexing``).
Produces: ``studies.changed``, through the outbox.
Tables it writes: packs, patients, studies, series, instances, instance_versions, outbox.
Objects it writes: ``metadata/<study>/<series>/<revision>.json.gz``.

The catalog is a function of the packs, whatever order they are indexed in and however often:

- Of instances with the same SOP Instance UID, the one in the pack that was stored first is the instance. Others with
  the same bytes change nothing; others with different bytes are kept as versions.
- The attributes of a study and of a series are those of its instance that was stored first (then by SOP Instance UID).
- Times are those of the packs; counts are derived from the instances.
- A study without Patient ID has a patient of its own, since nothing says that two of them are one person.
"""
