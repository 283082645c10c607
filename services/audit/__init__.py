"""The audit record: who did what to whose data, in a hash chain per tenant.

Consumes ``audit.recorded``; produces ``audit.recorded`` for those who read the record; writes the table
``audit_records``, in which its database role may insert and read but never change or delete.
"""
