import io

import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from tests.report.builders import some_samples, write_bench, write_run, write_sweep
from torchplastic.report.figures import maps, profiles, samples, scaling
from torchplastic.report.figures.learning import draw_learning, linear_below
from torchplastic.report.figures.style import COLOURS, Drawing, few_ticks, plain, render, style
from torchplastic.report.grouping import group_runs
from torchplastic.report.page_sections import make_sections
from torchplastic.report.published import published
from torchplastic.report.sources import read_bench, read_sources


@pytest.fixture(autouse=True)
def _style():
    with style():
        yield


def drawn(*paths, measure="error", **options):
    ((name, groups),) = group_runs(read_sources(paths).runs).items()
    return draw_learning(groups, measure, published(name).about(groups), **options).axes[0]


def line(axes, label):
    (found,) = [line for line in axes.get_lines() if str(line.get_label()).startswith(label)]
    return np.array(found.get_xdata(), float), np.array(found.get_ydata(), float)


def errorbar(axes, label):
    (found,) = [bar for bar in axes.containers if bar.get_label() == label]
    return np.array(found.lines[0].get_xdata(), float), np.array(found.lines[0].get_ydata(), float)


def test_published_points_and_our_curve_in_one_axes(tmp_path):
    axes = drawn(write_run(tmp_path / "run"), measure="loss")
    x, y = errorbar(axes, "published: plastic, mean of 10 runs")
    assert list(zip(x, y, strict=True))[:4] == [(0, 515), (100, 261), (150, 101), (200, 44)]
    assert (x[-1], y[-1]) == (1000, 6.5)
    x, y = line(axes, "plastic")
    assert (x[0], x[-1]) == (10, 300)
    assert y[0] == pytest.approx(1000 * 0.25 * 0.98**10, rel=0.02)
    assert axes.get_xlabel() == "training episodes"
    assert axes.get_ylabel() == "loss (squared error, sum over bits)"
    assert axes.get_xscale() == "linear"


def test_the_one_per_cent_line(tmp_path):
    axes = drawn(write_run(tmp_path / "run"), chance=0.25)
    x, y = line(axes, "published: below 1 % after about 200 episodes")
    assert (list(x), list(y)) == ([200], [0.01])
    assert any(
        np.all(np.asarray(other.get_ydata()) == 0.01) and len(other.get_xdata()) == 2 for other in axes.get_lines()
    )
    assert set(line(axes, "chance (0.25)")[1]) == {0.25}


def test_published_curves_of_all_models_of_the_form(tmp_path):
    run = write_run(tmp_path / "run", experiment="fifty-bit", preset="released", episodes=2000)
    axes = drawn(run)
    x, y = errorbar(axes, "published: LSTM")
    assert list(zip(x, y, strict=True)) == [(20e3, 0.131), (50e3, 0.121), (200e3, 0.071), (500e3, 0.0155), (1e6, 0.011)]
    assert errorbar(axes, "published: RNN")[1][0] == 0.17
    assert errorbar(axes, "published: plastic")[1] == pytest.approx([0.0015, 0.0015])
    assert axes.get_xscale() == "log"
    assert axes.get_xlim()[1] > 1e6
    (bar,) = [bar for bar in axes.containers if bar.get_label() == "published: plastic"]
    assert to_hex(bar.lines[0].get_color()) == COLOURS[0].lower()


def test_nothing_published_for_another_form(tmp_path):
    axes = drawn(write_run(tmp_path / "run", preset="smoke"), measure="loss")
    assert not axes.containers


def test_zero_episodes_stay_on_a_logarithmic_axis(tmp_path):
    axes = drawn(write_run(tmp_path / "run", episodes=60), measure="loss")
    assert axes.get_xscale() == "symlog"
    assert -5 < axes.get_xlim()[0] < 0
    assert linear_below(axes) == {"horizontal": 10}


def test_mean_with_band_from_smallest_to_largest(tmp_path):
    axes = drawn(write_sweep(tmp_path / "s", range(6), error=lambda e: 0.2))
    assert line(axes, "plastic")[1] == pytest.approx(0.2 * (1 + np.mean(range(6)) / 10))
    (band,) = axes.collections
    heights = band.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == pytest.approx((0.2, 0.3))


def test_median_with_quartiles(tmp_path):
    axes = drawn(write_sweep(tmp_path / "s", [0, 1, 2, 3, 10], error=lambda e: 0.2), spread="quartiles")
    assert line(axes, "plastic (median of 5 runs)")[1] == pytest.approx(0.24)
    heights = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == pytest.approx((0.22, 0.26))


def test_few_seeds_are_all_drawn(tmp_path):
    axes = drawn(write_sweep(tmp_path / "s", range(3), preset="smoke", error=lambda e: 0.2))
    levels = {round(float(other.get_ydata()[0]), 4) for other in axes.get_lines()}
    assert levels == {0.2, 0.22, 0.24}
    assert not axes.collections


def test_validation_values_beside_training(tmp_path):
    axes = drawn(write_run(tmp_path / "run", preset="smoke", extra=lambda e: {"val_error": 0.125}))
    assert line(axes, "plastic: validation data")[1] == pytest.approx(0.125)


def test_zeros_and_negative_values_are_drawn(tmp_path):
    axes = drawn(write_run(tmp_path / "a", error=lambda e: 0.0 if e > 100 else 0.3))
    assert (axes.get_yscale(), axes.get_ylim()[0]) == ("symlog", 0)
    axes = drawn(write_run(tmp_path / "b", experiment="x", measure="reward", error=lambda e: e - 50), measure="reward")
    assert (axes.get_yscale(), axes.get_ylabel()) == ("linear", "reward per episode")
    assert axes.get_ylim()[0] < -40


def test_small_values_without_zeros_stay_logarithmic_and_bands_fit(tmp_path):
    axes = drawn(write_sweep(tmp_path / "s", range(6), error=lambda e: 0.3 if e < 100 else 0.0004))
    assert axes.get_yscale() == "log"
    assert linear_below(axes) == {}
    low, high = axes.get_ylim()
    heights = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert low < heights.min() < heights.max() < high
    zeros = drawn(write_run(tmp_path / "a", error=lambda e: 0.0 if e > 100 else 0.3))
    assert linear_below(zeros) == {"vertical": 0.001}


def test_log_where_lengths_differ_much(tmp_path):
    lengths = [write_run(tmp_path / str(n), preset=f"f{n}", episodes=n) for n in (100, 2000)]
    assert drawn(*lengths).get_xscale() == "log"


def test_pictures_in_rows_with_missing_bits_in_another_colour():
    arrays = some_samples()
    rows = samples.picture_rows(arrays)
    assert list(rows) == ["before training", "after training"]
    assert list(rows["after training"])[-3:] == ["cue", "answer", "target"]
    figure = samples.draw_pictures(rows)
    pictures = [axes for axes in figure.axes if axes.images]
    assert len(pictures) == 16
    assert [axes.get_title() for axes in pictures][5:8] == ["cue", "answer", "target"]
    image = pictures[5].images[0]
    minus, zero, plus = (np.array(image.cmap(image.norm(value))[:3]) for value in (-1, 0, 1))
    assert np.ptp(minus) < 0.01
    assert np.ptp(plus) < 0.01
    assert np.ptp(zero) > 0.5
    assert np.array_equal(image.get_array(), arrays["pictures/before training/05 cue"])
    assert pictures[-2].get_xlabel() == "0 of 40 wrong"


def test_shades_are_grey_and_scored_by_squared_error():
    rng = np.random.default_rng(0)
    target = rng.uniform(-0.9, 0.9, (6, 6))
    row = {"picture 1": target, "answer": target + 0.5, "target": target}
    assert samples.verdict(row) == "squared error 9.00"
    image = samples.draw_pictures({"after training": row}).axes[0].images[0]
    assert np.ptp(image.cmap(0.5)[:3]) < 0.01


def test_wrong_bits_are_counted():
    target = np.array([[1.0, -1.0, 1.0, -1.0]])
    assert samples.verdict({"answer": np.array([[0.1, -0.9, -0.2, 0.0]]), "target": target}) == "2 of 4 wrong"
    assert samples.verdict({"target": target}) == ""


def test_sign_agreement_by_hand():
    w = np.array([[1.0, -2.0, 3.0, -4.0], [0.0, 1.0, 1.0, -1.0]])
    alpha = np.array([[2.0, -1.0, -1.0, 5.0], [1.0, 1.0, 0.0, -3.0]])
    found = samples.sign_agreement(w, alpha)
    assert (found.same, found.opposite, found.zero) == (4 / 8, 2 / 8, 2 / 8)
    assert found.quadrants == {(1, 1): 2 / 8, (1, -1): 1 / 8, (-1, 1): 1 / 8, (-1, -1): 2 / 8}
    assert found.correlation == pytest.approx(np.corrcoef(w.ravel(), alpha.ravel())[0, 1])


def test_sign_agreement_of_one_alpha_per_neuron():
    found = samples.sign_agreement(np.array([[1.0, -1.0], [1.0, 1.0]]), np.array([1.0, 1.0]))
    assert (found.same, found.opposite) == (0.75, 0.25)


def test_joint_counts_every_connection_once_with_an_edge_at_zero():
    arrays = some_samples(60)
    figure, outside = samples.draw_joint(arrays["matrix/w"], arrays["matrix/alpha"])
    image = figure.axes[0].images[0]
    assert image.get_array().filled(0).sum() == pytest.approx((1 - outside) * 3600)
    assert outside < 0.01
    left, right, bottom, top = image.get_extent()
    rows, columns = image.get_array().shape
    for low, high, cells in ((left, right, columns), (bottom, top, rows)):
        at_zero = -low / (high - low) * cells
        assert at_zero == pytest.approx(round(at_zero), abs=1e-6)
    texts = {text.get_text() for axes in figure.axes for text in axes.texts}
    same = samples.sign_agreement(arrays["matrix/w"], arrays["matrix/alpha"]).same
    assert f"same sign\n{100 * same:.1f} %" in texts


def test_matrix_is_symmetric_in_colour_and_whole_in_dots():
    w = some_samples(101)["matrix/w"]
    figure, dpi, limit = samples.draw_matrix(w, "w")
    image = figure.axes[0].images[0]
    assert image.get_clim() == (-limit, limit)
    assert limit == pytest.approx(np.quantile(np.abs(w), 0.995))
    width = figure.axes[0].get_position().width * figure.get_figwidth() * dpi / 101
    assert width == pytest.approx(round(width), abs=1e-6)
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == ("postsynaptic neuron", "presynaptic neuron")


@pytest.mark.parametrize("shape", [(64, 5), (3, 90), (1, 1), (1200, 1200)])
def test_matrices_of_any_shape(shape):
    figure, dpi, _ = samples.draw_matrix(np.random.default_rng(0).standard_normal(shape), "w")
    png, svg = render(Drawing("m", figure, "", raster=True, dpi=min(dpi, 200)))
    assert png.startswith(b"\x89PNG")
    assert b"<svg" in svg


def test_matrix_of_zeros():
    figure, _, limit = samples.draw_matrix(np.zeros((4, 4)), "alpha")
    assert limit == 1
    assert figure.axes[0].get_title() == "plasticity coefficients α"
    assert samples.draw_joint(np.zeros((4, 4)), np.zeros(4))[1] == 0


def test_lines_alone_and_together():
    arrays = {
        "line/a": np.arange(3.0),
        "line/both/x": np.ones(2),
        "line/both/y": np.zeros(2),
        "line/no": np.zeros((2, 2)),
    }
    groups = samples.line_groups(arrays)
    assert {title: list(lines) for title, lines in groups.items()} == {"a": ["a"], "both": ["x", "y"]}
    axes = samples.draw_lines("both", groups["both"]).axes[0]
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("both", "index")
    assert list(line(axes, "x")[1]) == [1, 1]


def test_a_map_has_a_picture_at_the_middle_of_each_label():
    points, labels = np.array([[0.0, 0], [2, 0], [5, 5], [5, 7]]), np.array([0, 0, 1, 1])
    arrays = {"map/features/points": points, "map/features/labels": labels, "map/torn/points": points}
    assert maps.feature_maps(arrays) == {}
    found = maps.feature_maps(arrays | {"map/features/pictures": np.zeros((2, 4, 4))})
    assert list(found) == ["features"]
    axes = maps.draw_map(*(found["features"][key] for key in ("points", "labels", "pictures"))).axes[0]
    assert [scatter.get_offsets().tolist() for scatter in axes.collections] == [[[0, 0], [2, 0]], [[5, 5], [5, 7]]]
    assert [artist.xy for artist in axes.artists] == [(1.0, 0.0), (5.0, 6.0)]
    assert len({tuple(scatter.get_facecolor()[0]) for scatter in axes.collections}) == 2


def test_heat_is_on_one_scale_and_walls_are_gray():
    before, after = np.full((3, 3), 0.1), np.full((3, 3), 0.4)
    before[0] = after[0] = np.nan
    axes = maps.draw_heat({"before": before, "after": after}).axes
    assert [axis.get_title() for axis in axes[:2]] == ["before", "after"]
    images = [axis.get_images()[0] for axis in axes[:2]]
    assert {image.get_clim() for image in images} == {(0, 0.4)}
    assert images[0].get_array().mask[0].all()


def test_profiles_are_means_over_runs_by_group(tmp_path):
    def run(name, level, **model):
        arrays = {"profile/reward/after training": np.full(50, level), "profile/reward/before training": np.zeros(50)}
        return write_run(tmp_path / name, samples=arrays, model=model)

    groups = group_runs(read_sources([run("a", 1.0), run("b", 3.0), run("c", 5.0, alpha="none")]).runs)["patterns"]
    found = profiles.profiles(groups)
    assert list(found) == ["reward"]
    axes = profiles.draw_profile("reward", found["reward"]).axes[0]
    lines_ = {text.get_label(): text.get_ydata() for text in axes.get_lines() if not text.get_label().startswith("_")}
    assert set(lines_) == {"plastic (3 runs)", "not plastic (1 run)", "before training"} or len(lines_) == 3
    assert sorted(float(np.mean(values)) for values in lines_.values()) == [0.0, 2.0, 5.0]
    assert len(profiles.stretches(np.arange(50.0))[0]) == 25
    assert profiles.stretches(np.arange(50.0))[1][0] == 0.5


def test_frames_in_colours():
    frames = np.zeros((4, 3, 3, 3), np.uint8)
    frames[2:, 0, 0] = (213, 94, 0)
    gif = Image.open(io.BytesIO(samples.animate(frames)))
    assert gif.n_frames == 2
    assert gif.info["duration"] == 2 * samples.COLOURED_STEP


def test_what_a_further_step_takes():
    def row(impl, T, traces):
        return {"impl": impl, "T": T, "N": 256, "B": 2, "peak_bytes": traces * 4 * 256**2 * 2}

    rows = [
        row("plain", 100, 300),
        row("plain", 200, 600),
        row("fast", 50, 9),
        row("fast", 100, 10),
        row("fast", 200, 20),
    ]
    assert scaling.traces_per_step(rows) == {"plain": 3, "fast": 0.1}
    assert scaling.traces_per_step(rows[:1]) == {}


def test_scaling_with_its_exponents(tmp_path):
    suites = scaling.scaling_suites(read_bench(write_bench(tmp_path / "b.json")).rows)
    assert list(suites) == ["N", "T", "B"]
    axes = scaling.draw_scaling(suites["N"], "N", "seconds").axes[0]
    labels = [bar.get_label() for bar in axes.containers]
    assert labels == ["reference  (grows as $N^{2.0}$ at the end)", "chunked  (grows as $N^{2.0}$ at the end)"]
    x, y = errorbar(axes, labels[0])
    assert list(x) == [100, 200, 400, 800]
    assert y == pytest.approx(np.array([0.5, 2, 8, 32]))
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("neurons N", "training step (ms)")
    memory = scaling.draw_scaling(suites["T"], "T", "peak_bytes").axes[0]
    assert memory.get_ylabel() == "peak memory (MiB)"
    assert scaling.draw_scaling([{"impl": "x", "N": 1, "peak_bytes": None}], "N", "peak_bytes") is None


def test_no_exponent_where_no_power_law_fits():
    rows = [{"impl": "x", "N": n, "seconds": {"median": s}} for n, s in ((1, 1.0), (2, 9.0), (4, 2.0), (8, 5.0))]
    assert scaling.draw_scaling(rows, "N", "seconds").axes[0].containers[0].get_label() == "x"


def test_tick_labels_are_short_and_exact():
    told = [plain(value) for value in (0, 0.01, 200, 1000, 1024, 16384, 50e3, 2.5e6, -0.5)]
    assert told == ["0", "0.01", "200", "1000", "1024", "16384", "50k", "2.5M", "−0.5"]


def test_error_bars_only_where_something_spreads(tmp_path):
    rows = scaling.scaling_suites(read_bench(write_bench(tmp_path / "b.json")).rows)["N"]
    (_, _, bars), *_ = scaling.draw_scaling(rows, "N", "peak_bytes").axes[0].containers
    assert not bars
    (_, _, bars), *_ = scaling.draw_scaling(rows, "N", "seconds").axes[0].containers
    assert bars


def test_few_ticks():
    assert few_ticks(1, 12) == [1, 2, 5, 10]
    assert few_ticks(1, 1000) == [1, 10, 100, 1000]


def test_equal_data_give_equal_files(tmp_path):
    run = write_run(tmp_path / "run")
    files = [render(Drawing("x", drawn(run).figure, "")) for _ in range(2)]
    assert files[0] == files[1]


# --- pictures, animations, levels to beat


def test_levels_of_trivial_answers_are_lines(tmp_path):
    run = write_run(
        tmp_path / "run",
        experiment="images",
        preset="quick",
        error=lambda e: 20.0,
        extra=lambda e: {"error_median": 18.0, "val_error_median": 19.0},
        noted={"baselines": {"val_error_median": {"zeros": 76.0, "nearest row": 117.0}}},
    )
    sections = make_sections(read_sources([run]))
    (figure,) = [d for d in sections[0].every_drawing() if d.name == "images-error_median"]
    axes = figure.figure.axes[0]
    assert set(line(axes, "zeros (76")[1]) == {76}
    assert set(line(axes, "nearest row (117")[1]) == {117}
    assert set(line(axes, "plastic: validation data")[1]) == {19}
    assert "Small dots: on data that are never used for training." in figure.caption


@pytest.mark.parametrize(
    "other", [{"task": {"side": 12}}, {"builtin_data": True}, {"noted": {"data": "pictures of my folder"}}]
)
def test_published_curves_stand_beside_their_own_task_alone(tmp_path, other):
    same = {"task": {"side": 32, "scaling": "centred"}, "builtin_data": False, "noted": {"data": "CIFAR-10: 50,000 …"}}
    extra = {"extra": lambda e: {"error_median": 18.0}}
    ours = write_run(tmp_path / "same", experiment="images", preset="quick", **extra, **same)
    theirs = write_run(tmp_path / "other", experiment="images", preset="quick", **extra, **(same | other))
    assert drawn(ours, measure="error_median").containers
    assert not drawn(theirs, measure="error_median").containers


def test_a_loss_that_is_the_error_is_drawn_once(tmp_path):
    run = write_run(tmp_path / "run", error=lambda e: 20.0, extra=lambda e: {"loss": 20.0})
    names = [drawing.name for drawing in make_sections(read_sources([run]))[0].every_drawing()]
    assert "patterns-error" in names
    assert "patterns-loss" not in names


def test_published_values_stand_beside_validation_values(tmp_path):
    run = write_run(
        tmp_path / "run",
        experiment="images",
        preset="quick",
        episodes=1200,
        extra=lambda e: {"error_median": 18.0, "val_error_median": 19.0},
        noted={"data": "CIFAR-10: 50,000 to train on"},
    )
    table = next(t for t in make_sections(read_sources([run]))[0].tables if t.title == "Published values beside ours")
    assert table.rows[0][0] == "error median"
    assert table.rows[0][-1] == "18.0 (plastic, 1 run; validation 19.0)"


def test_an_animation_holds_what_does_not_change():
    frames = np.zeros((7, 4, 5))
    frames[3:5], frames[5], frames[6] = 1, -1, 0.5
    with Image.open(io.BytesIO(samples.animate(frames))) as gif:
        assert gif.n_frames == 4
        assert gif.size == (5 * 51, 4 * 51)
        durations, shades = [], []
        for frame in range(4):
            gif.seek(frame)
            durations.append(gif.info["duration"])
            shades.append(gif.convert("L").getpixel((7, 7)))
    assert durations == [180, 120, 60, 1560]
    assert np.abs(np.array(shades) - [127, 255, 0, 191]).max() <= 2


def test_pictures_without_negative_shades_are_drawn_from_zero():
    gray, signed = np.full((3, 3), 0.4), np.full((3, 3), -0.1)
    assert samples.shades({"a": {"cue": gray, "target": gray, "answer": signed}}) == (0, 1)
    assert samples.shades({"a": {"cue": signed, "target": gray, "answer": gray}}) == (-1, 1)
    figure = samples.draw_pictures({"a": {"cue": gray, "target": gray, "answer": signed}})
    assert figure.axes[0].images[0].get_clim() == (0, 1)
