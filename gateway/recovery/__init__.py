"""An answer that was cut off is looked up: the transaction may exist upstream all the same."""
