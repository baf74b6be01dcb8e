"""Reports: figures and one self-contained page over runs, sweeps and bench files.

This layer only reads files. It draws *kinds* of data (curves, pictures, matrices, lines, timings) and knows no
experiment by name. `published.json` has the published values.
"""

try:
    from torchplastic.report.page import make_report
except ModuleNotFoundError as error:
    if error.name is None or error.name.split(".")[0] not in {"matplotlib", "scipy", "PIL", "jinja2"}:
        raise
    raise ModuleNotFoundError(
        f"reports need {error.name}. Install it with: pip install 'torchplastic[lab]'", name=error.name
    ) from error

__all__ = ["make_report"]
