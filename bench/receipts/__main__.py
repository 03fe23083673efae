"""Receipts: what issuing, verifying, auditing and proving cost. `python -m bench.receipts [--large]`.

Nothing but the call stands here: an audit's processes load this module once more each.
"""

from __future__ import annotations

if __name__ == "__main__":
    from bench.receipts.table import main

    main()
