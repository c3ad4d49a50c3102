"""A two-phase sink in memory: what was committed, and whether it was done as promised."""

from sage.common.ids import new_uuid
from sage.dataflow.function.sink import Sink, TwoPhaseWriter


class Ledger(Sink):
    """Keeps what was committed, in order.

    Attributes:
        committed: The records.
    """

    def __init__(self):
        self.committed = []
        self._known = set()

    def create_writer(self, context, state):
        return _LedgerWriter(self)

    def enter(self, name, records):
        """Take over a transaction, unless it is known."""
        if name not in self._known:
            self._known.add(name)
            self.committed += records


class _LedgerWriter(TwoPhaseWriter):
    def __init__(self, ledger):
        self._ledger = ledger
        self._records = []
        self._last = 0

    def write_batch(self, values):
        self._records += values

    def prepare_commit(self, checkpoint_id):
        assert checkpoint_id == 0 or checkpoint_id > self._last
        self._last = checkpoint_id
        records, self._records = self._records, []
        return (new_uuid(), records) if records else None

    def commit(self, committable):
        self._ledger.enter(*committable)

    def snapshot(self):
        return None
