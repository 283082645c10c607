"""Identity: tenants, users, roles, browser sessions, OAuth2 clients and the keys that sign access tokens.

Consumes: HTTP.
Produces: access tokens (JWT, ES256) and their key set, ``tenants.changed``, ``audit.recorded``.
Writes: tenants, users, clients, sessions, login_attempts, signing_keys, outbox.
"""
