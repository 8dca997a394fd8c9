"""Eligibility Gateway: a reverse proxy in front of the Enhanced Eligibility API."""
