import io
import json
import logging

import pytest
import structlog

from entrepot_chassis import logs


@pytest.fixture(autouse=True)
def as_before():
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_json_with_the_bound_ids():
    stream = io.StringIO()
    logs.configure(service="svc", stream=stream)
    with logs.bind(corr="c1"):
        logs.get("part").info("thing.done", bytes=3)
    logs.get("part").info("thing.after")
    first, second = lines(stream)
    assert (first["service"], first["corr"], first["event"], first["bytes"]) == (
        "svc",
        "c1",
        "thing.done",
        3,
    )
    assert "corr" not in second


def test_the_level_silences_what_is_below():
    stream = io.StringIO()
    logs.configure(service="svc", level="warning", stream=stream)
    logs.get("part").info("no")
    logs.get("part").warning("yes")
    assert [line["event"] for line in lines(stream)] == ["yes"]


def test_urls_lose_credentials_and_query_also_inside_exceptions():
    stream = io.StringIO()
    logs.configure(service="svc", stream=stream)
    log = logs.get("part")
    log.info(
        "a", url="https://me:pw@host/p?X-Amz-Signature=abc", error=ValueError("s3://k:pw@h?t=abc")
    )
    try:
        raise RuntimeError("GET https://me:pw@host/p?sig=abc failed")
    except RuntimeError:
        log.exception("b")
    text = stream.getvalue()
    assert "pw" not in text
    assert "abc" not in text
    assert "https://***@host/p?***" in text


def test_a_broken_stream_does_not_break_the_work():
    stream = io.StringIO()
    logs.configure(service="svc", stream=stream)
    stream.close()
    logs.get("part").error("unheard")
    logging.getLogger("lib").error("unheard too")


def test_library_records_come_out_as_json_even_with_bad_arguments():
    stream = io.StringIO()
    logs.configure(service="svc", stream=stream)
    logging.getLogger("nats").error("lost %s", "connection")
    logging.getLogger("nats").error("lost %d", "connection")
    assert [line["text"] for line in lines(stream)] == ["lost connection"]


def test_trace_fields_travel_as_headers_and_back():
    with logs.bind(corr="c", cause="m", traceparent="00-1-2-01", other="x"):
        headers = logs.headers_out()
    assert headers == {"x-corr": "c", "x-cause": "m", "traceparent": "00-1-2-01"}
    assert logs.fields_in({**headers, "x-other": "y"}) == {
        "corr": "c",
        "cause": "m",
        "traceparent": "00-1-2-01",
    }
