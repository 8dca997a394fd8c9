"""Deduplication: one question, one answer, however often and wherever it is asked."""
