"""`python -m periscope` is the command `periscope`."""

from __future__ import annotations

from periscope.cli import main

if __name__ == "__main__":
    main()
