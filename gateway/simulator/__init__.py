"""The simulator: a stand-in for the upstream, with payers, clocks and faults of its own.

The upstream's sandbox forbids load and fault tests. This process speaks the same contract, takes as
long as payers take, remembers what it was asked, and breaks on demand. All its data is synthetic.
"""

from gateway.simulator.options import Options
from gateway.simulator.server import Simulator, run

__all__ = ["Options", "Simulator", "run"]
