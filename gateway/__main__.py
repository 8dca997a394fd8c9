"""`python -m gateway` is `eligibility-gateway`."""

from gateway.cli import main

main()
