"""Web mode: commands by HTTPS, for programs; see `docs/how-to/commands-from-programs.md`."""
