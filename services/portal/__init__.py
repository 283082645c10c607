"""The subscribers' web pages: the worklist, the study page, the API documentation.

Consumes ``studies.changed``: every process reads all of it from now on and tells the browsers of that tenant, so that
new studies appear without a reload. Produces ``audit.recorded``. Reads the catalog; writes no table.
"""
