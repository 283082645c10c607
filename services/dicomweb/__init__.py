"""dicomweb: finds and gives out what is stored, over QIDO-RS and WADO-RS (PS3.18 chapters 8 and 10).

Consumes: nothing from Kafka.
Produces: ``audit.recorded``, one for every search and retrieval and for every refusal.
Reads: the catalog (studies, series, instances, packs), packs and metadata documents in the tenant's bucket.
Writes: no table and no object.
"""
