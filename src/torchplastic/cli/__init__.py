"""The command `plastic`."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command and exit with its code. Without arguments: this process is the command, and ends with it."""
    try:
        from torchplastic.cli.commands import run
    except KeyboardInterrupt:  # from the first moment on without a traceback
        raise SystemExit(130) from None
    run(arguments)
