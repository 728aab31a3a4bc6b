"""The shipped core under virtual time: simulated replicas, source, ledger and faults, and checkers outside the core."""
