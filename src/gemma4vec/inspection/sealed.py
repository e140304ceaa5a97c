"""Two halves of a suite's queries: one to find slices on, one sealed until a slice is confirmed.

The half of a query follows from a hash of the suite's contents and the query's id, so that nobody chooses it and every
machine has the same (`ledger.suite_halves`). The seal is a convention with a record, not a lock: the suite's files lie
open.

Without the second half the worst of a dozen clusters of queries looks "significant" in 30 to 62% of pure noise.
"""

from typing import Literal

Half = Literal["discovery", "sealed"]
DISCOVERY: Half = "discovery"
SEALED: Half = "sealed"
