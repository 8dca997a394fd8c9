"""Callers: who asks."""
