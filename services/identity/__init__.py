"""Identity: tenants, users, roles, browser sessions, OAuth2 clients, nodes and the keys that sign access tokens.

Consumes: HTTP.
Produces: access tokens (JWT, ES256) and their key set, ``tenants.changed``, ``audit.recorded``.
Writes: tenants, users, clients, sessions, login_attempts, nodes, node_certificates, called_ae_titles, signing_keys,
outbox.
"""
