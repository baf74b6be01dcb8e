"""The command `plastic`."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command and exit with its code. arguments: None means those of this process."""
    try:
        from torchplastic.cli.commands import run
    except KeyboardInterrupt:  # Ctrl-C during the imports: no traceback
        raise SystemExit(130) from None
    run(arguments)
