"""Procedural memory for any assistant: an MCP server that learns from what worked and what failed.

    from reme_mcp import Memory, Settings

`Memory` and `Settings` are imported when they are asked for, so that the server starts fast.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reme_mcp.config.settings import Settings
    from reme_mcp.memory.memory import Memory

__all__ = ["Memory", "Settings", "__version__"]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Import what the package offers at its top, the first time that it is asked for."""
    if name == "Memory":
        from reme_mcp.memory.memory import Memory

        return Memory
    if name == "Settings":
        from reme_mcp.config.settings import Settings

        return Settings
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
