"""The menubar: what stands in it, for SwiftBar and as an app of its own. `DESIGN.md` goes from the server to a menu."""

from periscope.menubar.following import Source, look, views
from periscope.menubar.menu import Action, CopyText, Item, Menu, OpenPage, RunCommand, menu_of
from periscope.menubar.swiftbar import FRAME_END, plugin_file, render
from periscope.menubar.view import View

__all__ = [
    "FRAME_END",
    "Action",
    "CopyText",
    "Item",
    "Menu",
    "OpenPage",
    "RunCommand",
    "Source",
    "View",
    "look",
    "menu_of",
    "plugin_file",
    "render",
    "views",
]
