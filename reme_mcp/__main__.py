"""`python -m reme_mcp` is `reme-mcp`."""

from reme_mcp.cli.main import main

if __name__ == "__main__":
    main()
