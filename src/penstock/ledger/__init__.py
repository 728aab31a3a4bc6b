"""What of a run is durable: commits, resume, and who may write."""

from penstock.ledger.ledger import Ledger
from penstock.ledger.view import RunView, read_run

__all__ = ["Ledger", "RunView", "read_run"]
