"""The public test kit: a harness that talks to a host, and conformance suites for engines and executors."""
