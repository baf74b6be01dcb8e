import pytest

from torchplastic.report.formatting import duration, listing, number, percent, size, slug, with_interval, with_range


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0083, "0.00830"), (0.009999999776, "0.0100"), (12.345, "12.3"), (99.96, "100"), (2004002, "2,004,002"),
        (5, "5"), (0, "0"), (-0.5, "−0.500"), (3.2e-7, "3.20·10⁻⁷"), (None, "–"), (float("nan"), "–"),
    ],
)  # fmt: skip
def test_number(value, text):
    assert number(value) == text


def test_units():
    assert [duration(s) for s in (4.2e-5, 0.0123, 19.4, 300, 8000)] == [
        "42.0 µs",
        "12.3 ms",
        "19.4 s",
        "5.00 min",
        "2.22 h",
    ]
    assert [size(b) for b in (512, 2048, 3 << 20, 5 << 30)] == ["512 B", "2.00 KiB", "3.00 MiB", "5.00 GiB"]
    assert (percent(0.5), percent(0.0008), percent(0)) == ("50.0 %", "0.08 %", "0.0 %")


def test_intervals_and_ranges():
    assert with_interval(0.5, (0.4, 0.6)) == "0.500 [0.400, 0.600]"
    assert with_interval(3.4e-4, (-2.04e-5, 7.004e-4)) == "0.000340 [−0.000020, 0.000700]"
    assert with_interval(0.0, (0.0, 0.01)) == "0 [0, 0.0100]"
    assert with_interval(0.5, (float("nan"), float("nan"))) == "0.500"
    assert with_range(20, 10, 30) == "20 (10 to 30)"
    assert with_range(20, 20, 20) == "20"


def test_lists_and_names():
    assert listing([3, 0, 1, 2, 7, 7]) == "0–3, 7"
    assert listing(["b", "a", "b"]) == "b, a"
    assert slug("plastic, α per connection") == "plastic-alpha-per-connection"
