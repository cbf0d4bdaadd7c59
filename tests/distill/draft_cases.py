"""What the tests of drafts share."""

from __future__ import annotations

from reme_mcp.transcripts.messages import parse_messages
from reme_mcp.transcripts.transcript import to_json as transcript_json


def calls(*tools: str) -> str:
    return transcript_json(
        parse_messages(
            [
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {"id": str(place), "type": "function", "function": {"name": tool, "arguments": "{}"}}
                        for place, tool in enumerate(tools)
                    ],
                }
            ]
        )
    )
