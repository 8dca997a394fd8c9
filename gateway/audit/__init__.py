"""The audit trail: who asked what, when, and what came of it, provable afterwards."""
