"""A log line is JSON, says what a request's life was, and repeats nothing that must not be repeated."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from zeta.errors import ConfigError
from zeta.gateway._logs import REQUESTS, JsonLines, log_request, set_up_logs

SECRETS = ("sk-canary-1234567", "Bearer canary-token", "http://user:canary-pass@10.0.0.1/")


class Written:
    """What was written so far."""

    def __init__(self) -> None:
        self.stream = io.StringIO()

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]


@pytest.fixture
def written() -> Iterator[Written]:
    found = Written()
    names = ("zeta", "asyncio", REQUESTS.name)
    before = {name: (logging.getLogger(name).level, logging.getLogger(name).propagate) for name in names}
    handler = set_up_logs("DEBUG", has_requests=True, stream=found.stream)
    yield found
    for name, (level, propagates) in before.items():
        logger = logging.getLogger(name)
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagates


def test_a_request_is_one_line_with_its_fields(written: Written) -> None:
    log_request(request_id="r1", model="7b", queue_ms=1.23456, decision_us=8.0, reason="promise", **{"class": "urgent"})
    (line,) = written.lines()
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "info",
        "logger": "zeta.gateway.requests",
        "message": "request",
        "request_id": "r1",
        "model": "7b",
        "class": "urgent",
        "queue_ms": 1.235,
        "decision_us": 8.0,
        "reason": "promise",
    }


def test_requests_are_silent_unless_asked_for() -> None:
    stream = io.StringIO()
    handler = set_up_logs(stream=stream)
    try:
        assert not REQUESTS.isEnabledFor(logging.INFO)
        log_request(request_id="r1")
        assert stream.getvalue() == ""
    finally:
        for name in ("zeta", "asyncio"):
            logging.getLogger(name).removeHandler(handler)
            logging.getLogger(name).propagate = True
            logging.getLogger(name).setLevel(logging.NOTSET)
        REQUESTS.setLevel(logging.NOTSET)


def test_setting_up_twice_writes_once(written: Written) -> None:
    set_up_logs(stream=written.stream)
    logging.getLogger("zeta.gateway").warning("once")
    assert len(written.lines()) == 1


@pytest.mark.parametrize("secret", SECRETS)
def test_what_looks_like_a_key_is_blotted_out(written: Written, secret: str) -> None:
    logging.getLogger("zeta.gateway").warning("it said %s today", secret, extra={"why": secret, "request_id": secret})
    text = written.stream.getvalue()
    assert "canary" not in text
    assert "***" in text


def test_fields_that_are_not_ours_are_left_out(written: Written) -> None:
    logging.getLogger("zeta.gateway").info("x", extra={"prompt": "canary", "headers": {"a": "canary"}})
    assert "canary" not in written.stream.getvalue()


def test_an_exceptions_own_words_are_kept_where_they_are_ours_only(written: Written) -> None:
    log = logging.getLogger("zeta.gateway")
    for error in (ValueError("canary prompt text"), ConfigError("the url is wrong")):
        try:
            raise error
        except ValueError:
            log.exception("failed")
    foreign, own = written.lines()
    assert foreign["error"] == "ValueError"
    assert "canary" not in json.dumps(foreign)
    assert foreign["at"][0].startswith("unit/gateway/test_logs.py:")
    assert own["error_message"] == "the url is wrong"


def test_no_text_breaks_the_line_or_the_json(written: Written) -> None:
    logging.getLogger("zeta.gateway").info('a\n"b" \x00 \u2028 é', extra={"why": object(), "model": b"\xff"})
    (line,) = written.lines()
    assert line["message"].startswith('a\n"b"')
    assert line["why"] == "<object>"
    assert any(isinstance(each.formatter, JsonLines) for each in logging.getLogger("zeta").handlers)
