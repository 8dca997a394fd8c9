"""Policies: YAML documents that say for which requests what is to be done."""
