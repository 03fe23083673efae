"""Receipts: what issuing, verifying, auditing and proving cost. `python -m bench.receipts [--large]`.

The work is in `receipts_measured`: an audit's processes load this module once more each, so it is small.
"""

from __future__ import annotations

if __name__ == "__main__":
    from bench.receipts_measured import main

    main()
