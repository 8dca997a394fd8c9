import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client import Histogram as Library
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from gateway.telemetry.series import Exemplar, Histograms, Numbers

BOUNDS = (0.1, 1.0, 10.0)


def text_of(family: Numbers | Histograms, *, is_openmetrics: bool = False) -> str:
    return b"".join(family.written(is_openmetrics=is_openmetrics)).decode()


@given(st.lists(st.floats(min_value=0, max_value=100)), st.text(max_size=20))
def test_it_writes_what_the_library_would(values: list[float], label: str) -> None:
    registry = CollectorRegistry()
    library = Library("h_seconds", "Some text.", ("who",), buckets=BOUNDS, registry=registry)
    ours = Histograms("h_seconds", "Some text.", ("who",), BOUNDS)
    library.labels(label)
    ours.of(label)
    for value in values:
        library.labels(label).observe(value)
        ours.of(label).observe(value)

    theirs = [line for line in generate_latest(registry).decode().split("\n") if "_created" not in line]
    assert read(text_of(ours)) == read("\n".join(theirs))


def read(text: str) -> list[tuple[str, tuple[tuple[str, str], ...], float]]:
    return sorted(
        (sample.name, tuple(sorted(sample.labels.items())), sample.value)
        for family in read_text(text)
        for sample in family.samples
    )


def test_a_value_on_a_bound_is_in_its_bucket() -> None:
    family = Histograms("h", "t", (), BOUNDS)
    assert [family.of().observe(value) for value in (0.1, 0.11, 10.0, 11.0)] == [0, 1, 2, 3]
    assert 'h_bucket{le="0.1"} 1.0\n' in text_of(family)


def test_counters_and_gauges_are_written_under_the_names_of_each_language() -> None:
    counters, gauges = Numbers("c", "t", ("a",)), Numbers("g", "t", ("a",), is_gauge=True)
    counters.of("x").value += 2
    gauges.of("x").value = 0.5

    assert text_of(counters) == '# HELP c_total t\n# TYPE c_total counter\nc_total{a="x"} 2.0\n'
    assert text_of(counters, is_openmetrics=True) == '# HELP c t\n# TYPE c counter\nc_total{a="x"} 2.0\n'
    assert text_of(gauges) == '# HELP g t\n# TYPE g gauge\ng{a="x"} 0.5\n'


@pytest.mark.parametrize(
    ("value", "written"), [(float("nan"), "NaN"), (float("inf"), "+Inf"), (float("-inf"), "-Inf"), (1e-9, "1e-09")]
)
def test_a_value_that_is_no_usual_number_is_written_as_prometheus_reads_it(value: float, written: str) -> None:
    gauges = Numbers("g", "t", (), is_gauge=True)
    gauges.of().value = value

    assert text_of(gauges).endswith(f"g {written}\n")


def test_an_exemplar_stands_at_its_bucket_in_openmetrics_alone() -> None:
    family = Histograms("h", "t", ("a",), BOUNDS)
    child = family.of("x")
    child.remember(child.observe(0.5), Exemplar("abc", 0.5, 12.5))

    assert "abc" not in text_of(family)
    text = text_of(family, is_openmetrics=True) + "# EOF\n"
    (parsed,) = read_openmetrics(text)  # type: ignore[no-untyped-call] # it ships no types
    (found,) = (sample for sample in parsed.samples if sample.exemplar)
    assert (found.labels["le"], found.exemplar.labels, found.exemplar.value) == ("1.0", {"trace_id": "abc"}, 0.5)


def test_a_child_is_made_once() -> None:
    family = Numbers("c", "t", ("a", "b"))
    assert family.of("x", "y") is family.of("x", "y")
    assert [child.labels for child in family.children()] == [{"a": "x", "b": "y"}]
