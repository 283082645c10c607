"""All of the identity service's SQL."""
