"""The durable state of a run: commits, resume, ownership."""

from penstock.ledger.ledger import Ledger
from penstock.ledger.view import RunView, read_run

__all__ = ["Ledger", "RunView", "read_run"]
