"""What mkdocs.yml cannot say: pages from outside docs/, the repository's address, links, and the help of the command.

Every link is written as it works in the repository. In the site it leads to the page made of that file, or, where
there is none, to the file in the repository; a link to a file that does not exist is a warning, which ends the build.
"""

import contextlib
import io
import itertools
import logging
import os
import posixpath
import re
import textwrap
import tomllib
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
PAGES = {  # page of the site: file of the repository
    "index.md": "README.md",
    "mathematics.md": "src/torchplastic/ops/plastic_scan/README.md",
    "results/pretrained.md": "src/torchplastic/weights/omniglot.md",
    "development/architecture.md": "ARCHITECTURE.md",
    "development/changelog.md": "CHANGELOG.md",
    "development/contributing.md": "CONTRIBUTING.md",
}
# code comes first, so that nothing in it is taken for a link
LINK = re.compile(
    r"(?P<code>^(?P<fence>```|~~~).*?^(?P=fence)|`[^`\n]+`)"
    r"|(?P<markdown>\]\(|^\[[^\]\n]+\]: +)(?P<target>[^)\s]+)"
    r'|(?P<html>\b(?:src|href)=")(?P<address>[^"]+)',
    re.M | re.S,
)
HELP = re.compile(r"^::: (plastic\b.*)$", re.M)
WIDTH = 88  # columns of a block of text that need no scrolling
log = logging.getLogger("mkdocs.hooks.torchplastic")


def on_config(config):
    """The addresses, from the one place that holds them: `[project.urls]` of pyproject.toml."""
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]
    config.repo_url = urls["Repository"]
    config.repo_name = urls["Repository"].split("/", 3)[-1]
    config.site_url = urls["Documentation"]
    config.edit_uri = "edit/main/"
    return config


def on_files(files, config):
    """Pages from outside docs/; every file knows its path in the repository (`edit_uri`)."""
    for file in files.documentation_pages() + files.media_files():
        file.edit_uri = f"docs/{file.src_uri}"
    for page, path in PAGES.items():
        file = File.generated(config, page, abs_src_path=str(ROOT / path))
        file.edit_uri = path
        files.append(file)
    return files


def on_page_markdown(markdown, page, config, files):
    """Links for the site, and the help of commands in the place of `::: plastic …`."""
    if page.parent is None:  # no pages beside it that a column could list
        page.meta["hide"] = ["navigation"]
    places = {file.edit_uri: file for file in files if file.edit_uri}

    def link(match):
        target = match["target"] or match["address"]
        if match["code"] or re.match(r"#|mailto:", target):
            return match[0]
        path, anchor = _path(target, page.file.edit_uri, config)
        if path is None:
            return match[0]
        if path in places and match["markdown"]:
            found = posixpath.relpath(places[path].src_uri, posixpath.dirname(page.file.src_uri))
        elif path in places:  # mkdocs leaves addresses in HTML as they are
            found = places[path].url_relative_to(page.file)
        elif (ROOT / path).exists():
            found = f"{config.repo_url}/{'tree' if (ROOT / path).is_dir() else 'blob'}/main/{path}"
        else:
            log.warning(f"{page.file.edit_uri} links to {target}, and there is no {path}.")
            return match[0]
        return f"{match['markdown'] or match['html']}{found}{anchor}"

    return HELP.sub(lambda match: _help(match[1]), LINK.sub(link, markdown))


def _path(target, here, config):
    """A link on the page made of the file `here` -> path in the repository (None: elsewhere), and the anchor."""
    target, hash_, anchor = target.partition("#")
    raw = config.repo_url.replace("github.com", "raw.githubusercontent.com")
    for prefix in (*(f"{config.repo_url}/{kind}/main/" for kind in ("blob", "tree", "raw")), f"{raw}/main/"):
        if target.startswith(prefix):
            return target.removeprefix(prefix), hash_ + anchor
    if "://" in target:
        return None, ""
    return posixpath.normpath(posixpath.join(posixpath.dirname(here), target)), hash_ + anchor


def _help(command):
    """What a command prints with `--help`, as a block of text."""
    from torchplastic import cli

    os.environ.update(COLUMNS=str(WIDTH), NO_COLOR="1")
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
        cli.main([*command.split()[1:], "--help"])
    if not shown.getvalue():
        log.warning(f"{command} --help prints nothing.")
    return "\n".join(["```text", *itertools.chain.from_iterable(map(_wrap, shown.getvalue().splitlines())), "```"])


def _wrap(line):
    """A line, or the lines that it becomes; after an option and two spaces they go on below the explanation."""
    if len(line) <= WIDTH:
        return [line]
    option = re.match(r" +\S.*?  +", line)
    return textwrap.wrap(line, WIDTH, subsequent_indent=" " * len(option[0]) if option else "")
