"""Rows of a server's status in a few words, for commands and menus alike. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from periscope.core.amounts import size

if TYPE_CHECKING:
    from periscope.remote.control import DownloadRow, HostRow, ModelRow, ToolServerRow


def state_text(model: ModelRow) -> str:
    """The state, with how far a load has come."""
    progress = None if model.load is None else model.load.progress
    return model.state if progress is None else f"{model.state} {progress:.0%}"


def download_text(download: DownloadRow) -> str:
    """What is fetched, how far it has come, and why it failed."""
    text = f"{download.model}: {download.state}"
    if download.total_bytes and download.state not in ("completed", "cancelled"):
        text += f", {download.completed_bytes / download.total_bytes:.0%} of {size(download.total_bytes)}"
    if download.bytes_per_s and download.state == "downloading":
        text += f", {size(round(download.bytes_per_s))}/s"
    return f"{text}: {download.error}" if download.error else text


def tool_server_text(server: ToolServerRow) -> str:
    """How an MCP server is, and why it cannot be reached. Those of models.yaml are connected to when they are used."""
    text = f"{server.name}: {server.state}"
    if server.num_tools:
        text += f", {server.num_tools} tools"
    return f"{text}: {server.problem}" if server.problem else text


def host_text(host: HostRow) -> str:
    """What the system says of the machine; empty where it says nothing."""
    facts = (
        host.pressure and f"memory pressure {host.pressure}",
        host.thermal and f"heat {host.thermal}",
        host.footprint_bytes and f"{size(host.footprint_bytes)} counted against the server",
        host.kept_awake and "kept awake",
    )
    return ", ".join(fact for fact in facts if fact)
