"""`periscope doctor`: looks at everything that a server needs on this machine, and says how to mend what is missing."""

from periscope.cli.doctor.command import doctor

__all__ = ["doctor"]
