"""Procedural memory for any assistant: an MCP server that learns from what worked and what failed."""

__version__ = "0.1.0"
