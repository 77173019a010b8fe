"""Periscope as an MCP server: tools by which an agent whose own model is blind has images seen."""

from __future__ import annotations

from periscope.mcp_server.folders import AllowedFolders
from periscope.mcp_server.http import HttpTools
from periscope.mcp_server.sight import Sight

__all__ = ["AllowedFolders", "HttpTools", "Sight"]
