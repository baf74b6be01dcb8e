"""The command `plastic`: parsing only. Each command imports what it needs when it runs."""

import contextlib
import io
import json
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, TypeVar

T = TypeVar("T")
USAGE = """usage: plastic COMMAND ...

  list                     experiments and presets: what each reproduces, its usual cost and result
  train EXPERIMENT         train, e.g. plastic train patterns --preset smoke;  --resume RUN goes on with a run
  sweep EXPERIMENT         the same over many seeds: --seeds 10 --jobs 2
  eval RUN                 measure a run on new episodes
  report RUN|BENCH.json... figures and one self-contained HTML page
  bench [NAME...]          speed and memory against the plain loop
  data fetch NAME          download a data set: cifar10, omniglot

plastic COMMAND --help lists its options. With --debug an error comes with its traceback.
plastic --version prints the version."""


SWEEP_USAGE = """usage: plastic sweep EXPERIMENT [--seeds 10] [--jobs N] [--backend local|ray] [--out DIR]
                     [any flag of plastic train]

Trains seeds 0 to N - 1, each in a process of its own, `jobs` at a time. Called again it goes on with what is not
finished; seeds, jobs, episodes and threads may then differ.

  --seeds N          how many seeds
  --jobs N           processes at a time; the CPU's threads are shared out among them. Default 2; where each seed has
                     one GPU (--device cuda, or auto where there is one) as many as fit its memory, side by side on it,
                     up to the CPU's cores and the seeds
  --backend ray      as tasks of the Ray cluster that is running, or of a local one; its machines share the folder
  --out DIR          default runs/sweeps/EXPERIMENT-PRESET-HASH; the hash is of the settings

The flags of plastic train; of those, a sweep sets --seed and --out itself:
"""


class UsageError(Exception):
    """Wrong use of the command: one line, exit code 2."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and exit with its code."""
    args = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in args
    args = [argument for argument in args if argument != "--debug"]
    if debug and args[:1] == ["sweep"]:  # which passes it on
        args.append("--debug")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # where there is no α or ×, a question mark
    if not args or args[0] in ("-h", "--help"):
        print(USAGE)
        raise SystemExit(0 if args else 2)
    if args[0] == "--version":
        print(f"torchplastic {version('torchplastic')}")
        raise SystemExit(0)
    try:
        if args[0] not in COMMANDS:
            raise UsageError(f"unknown command {args[0]!r}; choose one of {', '.join(COMMANDS)}.")
        raise SystemExit(COMMANDS[args[0]](args[1:]))
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except BrokenPipeError:  # the reader of our output has gone
        sys.stderr.close()
        raise SystemExit(1) from None
    except ModuleNotFoundError as error:
        if debug:
            traceback.print_exc()
        extra = "cluster" if error.name == "ray" else "lab"
        _fail(f"{error.name} is not installed; this needs the extra {extra}: pip install 'torchplastic[{extra}]'", 2)
    except (UsageError, ValueError) as error:
        if debug:
            traceback.print_exc()
        _fail(str(error), 2)
    except Exception as error:
        if debug:
            traceback.print_exc()
        _fail(str(error) or type(error).__name__, 1)


def _fail(message: str, code: int) -> NoReturn:
    print(f"plastic: error: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(code)


def _parse(kind: Callable[..., T], prog: str, args: Sequence[str], default: Any = None) -> T:
    """Flags through tyro; its boxed messages become one line."""
    import tyro

    more = {} if default is None else {"default": default}
    boxed = io.StringIO()
    try:
        with contextlib.redirect_stderr(boxed):
            return tyro.cli(kind, prog=prog, args=args, **more)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise UsageError(f"{_first_section(boxed.getvalue()).rstrip('.')}. See {prog} --help.") from None


def _first_section(box: str) -> str:
    """What a message of the parser says between its title and its advice, without the box around it."""
    sections: list[list[str]] = [[]]
    for line in box.splitlines()[1:]:
        text = line.strip(" │╭╮╰╯├┤─-") if set(line) <= set(" │╭╮╰╯├┤─-") else line.strip(" │")
        if text:
            sections[-1].append(text)
        elif sections[-1]:
            sections.append([])
    text = " ".join(sections[0]).split(" For full helptext")[0]
    return re.sub(r"^Error parsing [\w.]*\b(?<!-): (?=\w+\.|\w+ must)", "", text)


# --- plastic list


def list_(args: Sequence[str]) -> int:
    """Experiments and presets."""

    @dataclass
    class List:
        """Experiments and presets: what each reproduces, its usual cost on two CPU cores, its usual result."""

    _parse(List, "plastic list", args)
    from rich.console import Console
    from rich.table import Table

    from torchplastic.experiments import registry

    console = Console()
    for name in registry.names():
        experiment = registry.get(name)
        if not console.is_terminal:  # a line each, for grep
            for preset, entry in experiment.presets.items():
                print(name, preset, entry.about, entry.cost, entry.result, sep="\t")
            continue
        table = Table(
            "preset", "what", "cost on two cores", "result", title=f"{name}: {experiment.about}", title_justify="left"
        )
        for preset, entry in experiment.presets.items():
            table.add_row(preset, entry.about, entry.cost, entry.result)
        console.print(table)
    return 0


# --- plastic train


def train(args: Sequence[str]) -> int:
    """Train an experiment, or go on with a run."""
    experiment = args[0] if args and not args[0].startswith("-") else None
    if any(argument == "--resume" or argument.startswith("--resume=") for argument in args):
        if experiment is not None:
            raise UsageError("a run knows its experiment; leave the name away: plastic train --resume RUN.")
        return _resume(args)
    if experiment is None and not {"-h", "--help"} & set(args):
        raise UsageError(
            "name an experiment first: plastic train EXPERIMENT [--preset PRESET], or --resume RUN. See plastic list."
        )
    if experiment is None:
        from torchplastic.experiments import registry

        print(f"usage: plastic train {{{','.join(registry.names())}}} [--preset PRESET] [flags], see --help of each")
        print("       plastic train --resume RUN [--episodes N] [--device DEVICE] [--devices N]")
        return 0
    flags = _train_flags("plastic train", "Train an experiment in a new run directory.", experiment, args[1:])
    from torchplastic.experiments import launch

    return _outcome(launch.start(flags.config, flags.out, flags.device, flags.devices))


def _before(args: Sequence[str], **flags: dict[str, Any]) -> tuple[Any, list[str]]:
    """Flags that are needed before the others can be read -> their values, the other arguments."""
    import argparse

    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False, allow_abbrev=False)
    for name, options in flags.items():
        parser.add_argument(f"--{name.replace('__', '.').replace('_', '-')}", **options)
    try:
        return parser.parse_known_args(args)
    except argparse.ArgumentError as error:
        raise UsageError(f"{error}.") from None


def _train_flags(prog: str, about: str, experiment: str, args: Sequence[str]) -> Any:
    """The flags of training an experiment -> config, out, device, devices."""
    from torchplastic.experiments import registry

    chosen, rest = _before(
        args, preset={"default": "quick"}, model__kind={"default": "plastic", "choices": ("plastic", "rnn", "lstm")}
    )
    kind = vars(chosen)["model.kind"]
    config = registry.settings(experiment, chosen.preset, kind)

    @dataclass
    class Train:
        config: Annotated[registry.get(experiment).config, _flat()]  # type: ignore[valid-type]
        out: Path | None = None
        """Run directory, which must not exist; default runs/EXPERIMENT/PRESET-seedS-DATE-TIME."""
        device: str = "auto"
        """auto, cpu, cuda or cuda:N."""
        devices: int = 1
        """Processes that share every batch, one per device (on a CPU, per share of its threads)."""

    presets = ", ".join(registry.get(experiment).presets)
    Train.__doc__ = (
        f"{about} --preset PRESET chooses where the settings start: {presets}; default quick. "
        f"The defaults below are those of {chosen.preset} with --model.kind {kind}."
    )
    flags = _parse(Train, f"{prog} {experiment}", rest, Train(config))
    if flags.devices < 1:
        raise UsageError(f"--devices must be at least 1; got {flags.devices}.")
    return flags


def _flat() -> Any:
    import tyro

    return tyro.conf.arg(name="")


def _resume(args: Sequence[str]) -> int:
    @dataclass
    class Resume:
        """Go on exactly where a run stopped, with its own settings."""

        resume: Path
        """The run directory."""
        episodes: int | None = None
        """Train on this many episodes in all, instead of what the run asked for."""
        device: str = "auto"
        """auto, cpu, cuda or cuda:N."""
        devices: int = 1
        """Processes that share every batch."""
        data_dir: Path | None = None
        """Where the run's data lie now, if they were moved."""

    flags = _parse(Resume, "plastic train", args)
    if flags.episodes is not None and flags.episodes < 1:
        raise UsageError(f"--episodes must be at least 1; got {flags.episodes}.")
    from torchplastic.experiments import launch

    return _outcome(launch.resume(flags.resume, flags.episodes, flags.device, flags.devices, flags.data_dir))


def _outcome(outcome: Any) -> int:
    if outcome.run is None:  # the first process speaks for all
        return 0
    path = outcome.run.path
    if not outcome.finished:
        shared = f" --devices {outcome.devices}" if outcome.devices > 1 else ""
        print(f"stopped and saved; go on with: plastic train --resume {path}{shared}", file=sys.stderr)
        return 128 + outcome.signal
    summary = outcome.run.summary
    if not outcome.trained:
        print(f"{path} is finished: {summary['episodes']} episodes.", file=sys.stderr)
    final = "  ".join(f"{name} {value:.4g}" for name, value in summary["final"].items() if isinstance(value, float))
    print(f"{path}  episodes {summary['episodes']}  {final}  {summary['seconds']:.1f} s")
    return 0


# --- plastic sweep


def sweep(args: Sequence[str]) -> int:
    """The same run over many seeds."""
    if not args or args[0].startswith("-"):
        if {"-h", "--help"} & set(args):
            print(SWEEP_USAGE)
            return 0
        raise UsageError("name an experiment first: plastic sweep EXPERIMENT --seeds N. See plastic list.")
    experiment = args[0]
    if {"-h", "--help"} & set(args):
        print(SWEEP_USAGE)
    own, rest = _before(
        args[1:],
        seeds={"type": int, "default": 10},
        jobs={"type": int},
        backend={"choices": ("local", "ray"), "default": "local"},
        out={"type": Path},
        data_dir={"type": Path},
        debug={"action": "store_true"},
    )
    if own.data_dir is not None:  # each process has its own working directory
        rest += ["--data-dir", str(own.data_dir.absolute())]
    for name in ("seeds", "jobs"):
        if getattr(own, name) is not None and getattr(own, name) < 1:
            raise UsageError(f"--{name} must be at least 1; got {getattr(own, name)}.")
    if any(argument == "--seed" or argument.startswith("--seed=") for argument in rest):
        raise UsageError("a sweep chooses the seeds itself, 0 to N - 1; say how many with --seeds N.")
    flags = _train_flags("plastic sweep", "Each seed is trained as by plastic train.", experiment, rest)
    from torchplastic.experiments.sweep import Sweep, default_jobs, default_path, make_pool, run_sweep

    config = flags.config
    path = own.out or default_path(config)
    what = Sweep(config, tuple(range(own.seeds)), tuple(rest), flags.device, flags.devices, path.absolute(), own.debug)
    jobs = own.jobs or default_jobs(what, own.backend)
    statuses, number = run_sweep(what, make_pool(own.backend, jobs), jobs)
    for one in statuses:
        measured = "" if one.measured is None else f"  {one.measure} {one.measured:.4g}"
        why = f"  ({one.why})" if one.why else ""
        print(f"seed {one.seed}  {one.state}  episodes {one.episode}{measured}{why}")
    finished = sum(one.state == "finished" for one in statuses)
    print(f"{path}  {finished} of {len(statuses)} seeds finished; report: plastic report {path}")
    if finished < len(statuses):
        print("the same command goes on with the others", file=sys.stderr)
    if number is not None:
        return 128 + number
    return 0 if finished == len(statuses) else 1


# --- plastic eval


def eval_(args: Sequence[str]) -> int:
    """Measure a run on new episodes."""
    import tyro

    @dataclass
    class Eval:
        """Measure a run on new episodes; of a run in progress, its last checkpoint."""

        run: tyro.conf.Positional[Path]
        episodes: int | None = None
        """New episodes, from a stream of their own; default 1,000, of omniglot 10,000."""
        data_dir: Path | None = None
        """Take the data from here instead of where the run had them."""
        device: str = "auto"
        """auto, cpu, cuda or cuda:N."""
        json: bool = False
        """Print one JSON object on stdout and nothing else."""

    flags = _parse(Eval, "plastic eval", args)
    if flags.episodes is not None and flags.episodes < 2:
        raise UsageError(f"--episodes must be at least 2; got {flags.episodes}.")
    from torchplastic.experiments import launch

    result = launch.evaluate(flags.run, flags.episodes, flags.data_dir, flags.device)
    if flags.json:
        print(json.dumps(result))
        return 0
    print(f"{result['experiment']} {result['preset']}, {result['episodes']} episodes, {result['split']}")
    for name in ("accuracy", "error", "reward"):
        if name in result:
            mean, (low, high), chance = (result[name][key] for key in ("mean", "ci95", "chance"))
            print(f"  {name:28} {mean:.5f}  95 % interval {low:.5f} … {high:.5f}  chance {chance:.4g}")
    for name, value in result["baselines"].items():
        print(f"  {name:28} {value:.5f}")
    for name, told in {"as it is": result.get("reward", {}), **result.get("variants", {})}.items():
        if "steps_to_first" in told:
            low, high = told["ci95"]
            print(
                f"  {name + ':':36} reward {told['mean']:.1f} ({low:.1f} … {high:.1f}), {told['steps_to_first']:.1f} "
                f"steps to the first reward, {told['steps_between']:.1f} between later ones"
            )
    if by_position := result.get("by_position"):
        print("  by position: " + ", ".join(f"{t + 1} {value:.4f}" for t, value in enumerate(by_position)))
    if medians := result.get("medians"):
        print("  medians: " + ", ".join(f"{name} {value:.5g}" for name, value in medians.items()))
    if "data" in result:
        print(f"  {result['data']}")
    return 0


# --- plastic report


def report(args: Sequence[str]) -> int:
    """Figures and one page."""
    import tyro

    @dataclass
    class Report:
        """Figures (PNG, SVG) and one self-contained HTML page."""

        paths: tyro.conf.Positional[tuple[Path, ...]]
        """Run directories, sweep directories, bench files."""
        out: Path | None = None
        """Where to; default RUN/report, or runs/reports/DATE-TIME for several."""

    flags = _parse(Report, "plastic report", args)
    if not flags.paths:
        raise UsageError("name at least one run, sweep or bench file: plastic report RUN.")
    from torchplastic.report import make_report

    print(make_report(list(flags.paths), flags.out))
    return 0


# --- plastic bench


def bench(args: Sequence[str]) -> int:
    """Speed and memory against the plain loop."""
    import tyro

    @dataclass
    class Bench:
        """Training step of each preset, in one process and in turn: median time, memory, ratios."""

        names: tyro.conf.Positional[tuple[str, ...]] = ()
        """Which suites: patterns, fifty-bit, images, omniglot, maze, scaling-n, scaling-t, scaling-b, large (on a GPU);
        without a name all that suit the device."""
        json: Path | None = None
        """Write the results to this file, which must not exist."""
        rounds: int = 15
        """Timed steps of each preset and case."""
        device: Literal["auto", "cpu", "cuda"] = "auto"
        """Where to run."""

    flags = _parse(Bench, "plastic bench", args)
    if flags.rounds < 3:
        raise UsageError(f"--rounds must be at least 3; got {flags.rounds}.")
    if flags.json is not None and flags.json.exists():
        raise UsageError(f"{flags.json} exists; choose another --json.")
    from torchplastic.bench import run_bench

    run_bench(flags.names, flags.rounds, flags.device, flags.json)
    return 0


# --- plastic data


def data(args: Sequence[str]) -> int:
    """Download a data set."""
    import tyro

    if args[:1] != ["fetch"]:
        if set(args) & {"-h", "--help"}:
            print("usage: plastic data fetch cifar10|omniglot [--data-dir DIR]")
            return 0
        raise UsageError(f"say what to do: plastic data fetch NAME [--data-dir DIR]; got {' '.join(args)!r}.")
    from torchplastic.data.download import SOURCES, default_folder, fetch

    @dataclass
    class Fetch:
        """Download a data set, with a checksum; a download that broke off goes on."""

        name: tyro.conf.Positional[str]
        """cifar10 or omniglot"""
        data_dir: Path | None = None
        """Where to; default the folder TORCHPLASTIC_DATA, or the user's cache folder."""

    flags = _parse(Fetch, "plastic data fetch", args[1:])
    if flags.name not in SOURCES:
        raise UsageError(f"unknown data set {flags.name!r}; choose one of {', '.join(SOURCES)}.")
    print(*fetch(flags.name, flags.data_dir or default_folder()), sep="\n")
    return 0


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "list": list_,
    "train": train,
    "sweep": sweep,
    "eval": eval_,
    "report": report,
    "bench": bench,
    "data": data,
}
