"""The OAuth2 token: fetched once for the whole fleet, refreshed ahead of time, never seen by a caller."""
