"""The sections of a report's page: one for each experiment and each bench file."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from torchplastic.report import comparison, tables
from torchplastic.report.curves import HELD_OUT, curves_of, held_out_curves
from torchplastic.report.figures import learning, maps, profiles, samples, scaling
from torchplastic.report.figures.style import Animation, Drawing
from torchplastic.report.formatting import listing, number, percent, plural, slug
from torchplastic.report.grouping import Group, group_runs
from torchplastic.report.published import Literature, published
from torchplastic.report.sources import Bench, Samples, Sources
from torchplastic.report.tables import Table
from torchplastic.runs import RunRecord


@dataclass
class Section:
    """A heading with figures, animations, tables and collapsible texts.

    note: a sentence under the heading.
    details: (title, text) of the collapsed texts.
    subsections: the sections one level below.
    """

    title: str
    note: str = ""
    drawings: list[Drawing] = field(default_factory=list)
    animations: list[Animation] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    details: list[tuple[str, str]] = field(default_factory=list)
    subsections: list[Section] = field(default_factory=list)

    @property
    def anchor(self) -> str:
        """The name of the section in links to it."""
        return slug(self.title)

    def every_drawing(self) -> list[Drawing]:
        """The drawings of this section and of all its subsections."""
        return self.drawings + [drawing for section in self.subsections for drawing in section.every_drawing()]

    def every_animation(self) -> list[Animation]:
        """The animations of this section and of all its subsections."""
        return self.animations + [each for section in self.subsections for each in section.every_animation()]


def make_sections(sources: Sources) -> list[Section]:
    """One section per experiment and per bench file, with its figures drawn; titles and figure names are unique."""
    sections = [_experiment(name, groups) for name, groups in group_runs(sources.runs).items()]
    sections += [_bench(bench) for bench in sources.benches]
    _make_names_unique(sections)
    return sections


def _experiment(name: str, groups: Sequence[Group]) -> Section:
    literature = published(name).about(groups)
    runs = [run for group in groups for run in group.runs]
    seeds = listing(run.seed for run in runs if run.seed is not None)
    presets = listing(dict.fromkeys(run.preset for run in runs if run.preset))
    note = (
        f"{plural(len(runs), 'run')}; {'presets' if ', ' in presets else 'preset'} {presets}; "
        f"{'seed' if seeds.isdigit() else 'seeds'} {seeds}."
    )
    unfinished = [run for run in runs if not run.finished]
    if unfinished:
        note += f" {plural(len(unfinished), 'run')} not finished: " + ", ".join(
            f"{run.path} at episode {run.episodes:,} of {number(run.config.get('episodes'))}" for run in unfinished
        )
        note += "."
    note += _outside(runs)
    section = Section(name, note, _learning(name, groups, literature) + _profiles(name, groups))
    if any(run.rows for run in runs):
        candidates = [
            tables.results_table(groups, literature),
            comparison.rank_sum_table(groups, tables.measure_of(groups)),
            comparison.reach_table(groups),
            comparison.published_table(groups, literature),
        ]
        section.tables += [table for table in candidates if table is not None]
    else:
        section.note += " No metrics have been written yet."
    measured = [tables.evaluation_table(groups), tables.variants_table(groups), tables.position_table(groups)]
    section.tables += [table for table in (*measured, tables.provenance_table(runs)) if table is not None]
    for group in groups:
        sampled = _samples(name, group, single=len(groups) == 1)
        if sampled.drawings:
            section.subsections.append(sampled)
        first = f" (seed {group.config.get('seed')})" if len(group.runs) > 1 else ""
        section.details.append((f"Commands: {group.label}", _commands(group)))
        section.details.append(
            (f"Configuration: {group.label}{first}", json.dumps(group.config, indent=2, ensure_ascii=False))
        )
    return section


def _outside(runs: Sequence[RunRecord]) -> str:
    """A warning of runs whose learned eta is no rate any more."""
    rates = [(run.path, run.rows[-1].get("eta")) for run in runs if run.rows]
    found = [f"{path} ({eta:.3g})" for path, eta in rates if eta is not None and not 0 <= eta <= 1]
    if not found:
        return ""
    return (
        f" Warning: eta has left 0 … 1 in {', '.join(found)}. Below 0 the trace is written with the opposite sign, and "
        "Hebb's trace grows; above 1 Hebb's trace changes its sign at each step."
    )


def _commands(group: Group) -> str:
    """The commands that started the runs: as recorded, or else reconstructed from the configuration."""
    lines = []
    for run in group.runs:
        command = run.recorded("command")
        if command is None:
            known = {"preset": run.preset or None, "seed": run.seed, "episodes": run.config.get("episodes")}
            flags = " ".join(f"--{key} {value}" for key, value in known.items() if value is not None)
            command = f"plastic train {run.experiment} {flags}   (other settings: see the configuration)"
        lines.append(f"{run.path}: {shlex.join(command) if isinstance(command, list) else command}")
    return "\n".join(lines)


def _learning(name: str, groups: Sequence[Group], literature: Literature) -> list[Drawing]:
    measure = tables.measure_of(groups)
    drawings = []
    same = all(row.get("loss") == row.get(measure) for group in groups for run in group.runs for row in run.rows)
    for which in dict.fromkeys((*(() if same else ("loss",)), measure, f"{measure}_median", "eta")):
        levels = _baselines(groups, which)
        chance = _chance(groups, which, levels)
        for spread in ("range", "quartiles"):
            if spread == "quartiles" and (which == "eta" or not learning.has_quartiles(groups, which)):
                continue
            if which == "eta" and not _varies(groups, "eta"):
                continue
            figure = learning.draw_learning(groups, which, literature, spread, chance, levels)
            if figure is not None:
                suffix = "" if spread == "range" else "-median"
                caption = _learning_caption(name, groups, which, literature, spread)
                if any(held_out_curves(group.whole, which) for group in groups):
                    caption += " Small dots: on data that are never used for training."
                for axis, linear in learning.linear_below(figure.axes[0]).items():
                    caption += f" The {axis} axis is linear below {linear:g}."
                drawings.append(Drawing(f"{slug(name)}-{which}{suffix}", figure, caption))
    return drawings


def _profiles(name: str, groups: Sequence[Group]) -> list[Drawing]:
    drawings = []
    for what, members in profiles.profiles(groups).items():
        caption = f"{name}: {what} within an episode, for trained networks, averaged over {profiles.STRETCHES} equal "
        caption += "stretches. Mean over runs and over the episodes that each run saved."
        drawings.append(Drawing(f"{slug(name)}-{slug(what)}", profiles.draw_profile(what, members), caption))
    return drawings


def _learning_caption(
    name: str, groups: Sequence[Group], measure: str, literature: Literature, spread: learning.Spread
) -> str:
    sizes = {len(group.whole) for group in groups if curves_of(group.runs, measure)}
    full = learning.FEWEST_FOR_BAND[spread]
    text = f"{name}: {literature.label(measure)} during training. Lines are smoothed over ± 5 % of the episode number."
    if any(size >= full for size in sizes):
        lines = {
            "range": "mean over runs; band: minimum to maximum",
            "quartiles": "median over runs; band: first to third quartile",
        }
        text += f" Line: {lines[spread]}."
    if any(1 < size < full for size in sizes):
        text += f" With fewer than {full} runs, each is a thin line."
    if 1 in sizes:
        text += " Faint line: the unsmoothed metrics of a single run."
    entries = literature.of(measure)
    if entries:
        sources = "; ".join(dict.fromkeys(entry.source for entry in entries))
        text += (
            f" White markers: published ({sources}); the notes of the table of published values describe their source."
        )
    return text


def _varies(groups: Sequence[Group], key: str) -> bool:
    values = {row.get(key) for group in groups for run in group.runs for row in run.rows}
    return len(values - {None}) > 1


def _chance(groups: Sequence[Group], measure: str, levels: Mapping[str, float]) -> float | None:
    """The chance level of the evaluations; None if it is one of `levels`, measured on other episodes."""
    found = {
        evaluation[measure]["chance"]
        for group in groups
        for run in group.runs
        for evaluation in run.evaluations
        if isinstance(evaluation.get(measure), dict)
        and (level := evaluation[measure].get("chance")) is not None
        and level not in [value for name, value in evaluation.get("baselines", {}).items() if name in levels]
    }
    return float(found.pop()) if len(found) == 1 else None


def _baselines(groups: Sequence[Group], measure: str) -> dict[str, float]:
    """Levels of trivial answers, their medians over runs; empty if the runs were measured on different data."""
    recorded = [run.recorded("baselines") or {} for group in groups for run in group.runs]
    found = [
        baselines[key]
        for baselines in recorded
        for key in (*(f"{prefix}_{measure}" for prefix in HELD_OUT), measure)
        if key in baselines
    ]
    data = {run.recorded("data") for group in groups for run in group.runs if run.finished}
    if not found or len(data) > 1:
        return {}
    return {name: float(np.median([levels[name] for levels in found if name in levels])) for name in found[0]}


def _samples(name: str, group: Group, single: bool) -> Section:
    arrays = group.shown.samples()
    stem = slug(name) if single else f"{slug(name)}-{slug(group.label)}"
    title = "What a trained network does" if single else f"What a trained network does: {group.label}"
    seed = f", seed {group.shown.seed}" if len(group.runs) > 1 else ""
    section = Section(title, f"Run {group.shown.path}{seed}.")
    rows = samples.picture_rows(arrays)
    if rows:
        low, high = samples.shades(rows)
        caption = "What the network sees in an episode, and its answer; all pictures on one scale from "
        caption += f"{low:g} to {high:g}.".replace("-", "−")
        verdicts = [f"{row}: {verdict}" for row, pictures in rows.items() if (verdict := samples.verdict(pictures))]
        caption += f" Error of the answer, {'; '.join(verdicts)}." if verdicts else ""
        section.drawings.append(Drawing(f"{stem}-pictures", samples.draw_pictures(rows), caption, wide=True))
    for heading, frames in samples.by_kind(arrays, "frames").items():
        if frames.ndim == 4:
            caption = (
                f"{_sentence(heading)}: the first {len(frames) - 1} steps of an episode, {samples.COLOURED_STEP} ms "
            )
            caption += "each. Orange: the agent; green: the reward, which the agent does not see; dark: walls."
        else:
            caption = (
                f"{_sentence(heading)} through one episode of {len(frames)} steps, one pixel per neuron, −1 black, "
            )
            caption += (
                f"1 white. A step takes {samples.STEP} ms; equal frames last half a second at most, the last one "
            )
            caption += "longer."
        section.animations.append(Animation(f"{stem}-{slug(heading)}", samples.animate(frames), caption))
    section.drawings += _matrices(arrays, stem)
    for heading, arrays_of_map in maps.feature_maps(arrays).items():
        points, labels, pictures = (arrays_of_map[key] for key in ("points", "labels", "pictures"))
        figure = maps.draw_map(points, labels, pictures)
        caption = (
            f"{heading.capitalize()}: {len(points):,} pictures of {len(pictures)} classes, on the "
            "two directions in which the class means differ most; each class has one of its pictures at its mean."
        )
        section.drawings.append(Drawing(f"{stem}-map-{slug(heading)}", figure, caption, wide=True))
    if heat := samples.by_kind(arrays, "heat"):
        caption = "How often the agent visits each cell, over many episodes with different reward cells; walls gray."
        order = sorted(heat, key=lambda name: not name.startswith("before"))
        figure = maps.draw_heat({name: heat[name].astype(float) for name in order})
        section.drawings.append(Drawing(f"{stem}-heat", figure, caption, wide=True))
    for heading, lines in samples.line_groups(arrays).items():
        figure = samples.draw_lines(heading, lines)
        section.drawings.append(Drawing(f"{stem}-line-{slug(heading)}", figure, f"{heading}, by index."))
    return section


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:]


def _matrices(arrays: Samples, stem: str) -> list[Drawing]:
    matrices = samples.by_kind(arrays, "matrix")
    drawings = []
    for key, matrix in sorted(matrices.items(), key=lambda item: item[0] != "w"):
        if matrix.ndim != 2 or not matrix.size:
            continue
        figure, dpi, limit = samples.draw_matrix(matrix.astype(float), key)
        caption = (
            f"{samples.SYMBOLS.get(key, key).capitalize()}, {matrix.shape[0]:,} × {matrix.shape[1]:,}; "
            "row: presynaptic neuron, column: postsynaptic. "
            f"Colours end at ± {number(limit)}, the 99.5 % quantile of the magnitudes. Click to enlarge."
        )
        drawings.append(Drawing(f"{stem}-matrix-{slug(key)}", figure, caption, raster=True, dpi=dpi))
    w, alpha = matrices.get("w"), matrices.get("alpha")
    if w is not None and alpha is not None and w.ndim == 2 and alpha.shape in (w.shape, w.shape[1:], ()):
        figure, outside = samples.draw_joint(w.astype(float), alpha.astype(float))
        signs = samples.sign_agreement(w, alpha)
        caption = (
            f"Joint distribution of w and α over all {w.size:,} connections, with the marginals (logarithmic counts). "
            f"Same sign: {percent(signs.same)} of the connections; opposite sign: {percent(signs.opposite)}"
            + (f"; one of the two exactly zero: {percent(signs.zero)}" if signs.zero else "")
            + f". Pearson's r = {number(signs.correlation)}."
            + (f" Outside the axes: {percent(outside)}." if outside > 0 else "")
        )
        drawings.append(Drawing(f"{stem}-joint", figure, caption))
    return drawings


def _bench(bench: Bench) -> Section:
    content = bench.content
    note = f"{bench.path}, measured {content.get('date', 'at an unknown date')}."
    section = Section("Speed and memory", note, tables=tables.bench_tables(bench))
    growth = Section("How cost grows", "One size varies, the others are fixed.")
    for size, rows in scaling.scaling_suites(bench.rows).items():
        for what, words in (("seconds", "Time of a training step"), ("peak_bytes", "Peak memory of a training step")):
            figure = scaling.draw_scaling(rows, size, what)
            if figure is not None:
                spread = " (median and quartiles)" if what == "seconds" else ""
                caption = (
                    f"{words} against {scaling.SIZES[size]}{spread}, both axes logarithmic. {_fixed_sizes(rows, size)}"
                )
                caption += " The reference is the plain loop."
                if (size, what) == ("T", "peak_bytes"):
                    needed = [f"{impl} {number(count, 2)}" for impl, count in scaling.traces_per_step(rows).items()]
                    caption += f" Each further step needs, in traces of N² numbers: {', '.join(needed)}."
                name = f"bench-{size.lower()}-{what.replace('_', '-')}"
                growth.drawings.append(Drawing(name, figure, caption.strip()))
    section.subsections = [growth] if growth.drawings else []
    machine = (tables.key_values(content.get("hardware")), tables.key_values(content.get("versions")))
    section.tables.append(Table("Machine and versions", ("hardware", "versions"), (machine,), text_columns=2))
    return section


def _fixed_sizes(rows: Sequence[dict[str, object]], size: str) -> str:
    """The sizes that are fixed along the axis: `N = 1001, B = 1.`"""
    fixed = {other: {row.get(other) for row in rows} for other in scaling.SIZES if other != size}
    texts = [f"{other} = {values.pop()}" for other, values in fixed.items() if len(values) == 1 and None not in values]
    return f"{', '.join(texts)}." if texts else ""


def _make_names_unique(sections: Sequence[Section]) -> None:
    """Number equal titles and figure names: two bench files, or groups whose labels give the same file name."""
    titles: dict[str, int] = {}
    for section in sections:
        titles[section.title] = titles.get(section.title, 0) + 1
        if titles[section.title] > 1:
            section.title += f" ({titles[section.title]})"
    names: set[str] = set()
    shown: list[Drawing | Animation] = [drawing for section in sections for drawing in section.every_drawing()]
    shown += [animation for section in sections for animation in section.every_animation()]
    for drawing in shown:
        stem, count = drawing.name, 2
        while drawing.name in names:
            drawing.name, count = f"{stem}-{count}", count + 1
        names.add(drawing.name)
