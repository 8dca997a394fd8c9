"""The demo: the whole product on one machine, told as a story whose promises are checked."""
