"""When a verb is not carried out at all, and what the person can do instead. Pure."""

from __future__ import annotations

from periscope.service.agent import BREW_LABEL
from periscope.service.machine import Machine
from periscope.service.plan import Verb, View

MAC_ONLY = (
    "launchd is part of macOS, and this machine has none: run `periscope serve` under the supervisor of this system. "
    "`periscope service plist` and --dry-run show what a Mac would get."
)
_STARTING = (Verb.INSTALL, Verb.START, Verb.RESTART)


def refusal(verb: Verb, view: View, machine: Machine) -> str | None:
    """One or two sentences; None when the verb can be carried out."""
    if machine.uid == 0 and machine.has_launchd:
        return "The agent belongs to the user who logs in, not to root: run this without sudo."
    if view.has_brew and verb is not Verb.UNINSTALL:
        return _brew(verb)
    if verb in (Verb.START, Verb.RESTART) and not view.has_plist:
        return "Periscope is not installed as a service. Install it with `periscope service install`."
    if verb in _STARTING and not view.has_gui:
        return (
            f"There is no {machine.gui}: nobody is logged in at this Mac's screen, and agents live in that session. "
            "Log in there or by Screen Sharing, or run `periscope serve` here."
        )
    if verb in _STARTING and view.is_answered and not view.job.is_loaded:
        return (
            "A Periscope that launchd does not run answers at the configured address already. "
            "Stop it first (Ctrl-C in its terminal), or give the service another port in its models.yaml."
        )
    return None


def _brew(verb: Verb) -> str:
    if verb is Verb.INSTALL:
        return (
            f"Homebrew runs Periscope as a service already ({BREW_LABEL}); a second agent would fight for its port. "
            "Use `brew services`, or stop that one first: `brew services stop periscope`."
        )
    return f"Homebrew runs Periscope as a service ({BREW_LABEL}): use `brew services {verb.value} periscope`."
