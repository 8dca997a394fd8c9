"""HTTP on both sides: what is let in, what is sent out, and the admin port."""
