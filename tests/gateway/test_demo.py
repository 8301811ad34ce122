"""Claims about ``zeta serve --demo`` and the live half of ``zeta demo``."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

from zeta.cli._demo import _Request, _Seen


def test_the_demonstration_serves_real_engines_and_leaves_nothing_behind() -> None:
    command = [sys.executable, "-m", "zeta", "serve", "--demo", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            said = process.stdout.readline()
            found = re.search(r"http://127\.0\.0\.1:\d+", said)
            assert found, said
            for model in ("tiny", "small", "base"):
                body = {"model": model, "messages": [{"role": "user", "content": "What is 2 plus 5?"}], "max_tokens": 8}
                request = urllib.request.Request(
                    f"{found[0]}/v1/chat/completions",
                    json.dumps(body).encode(),
                    {"Content-Type": "application/json"},
                )
                with urllib.request.urlopen(request, timeout=20) as answer:
                    assert answer.headers["X-Zeta-Model"] == model
                    assert json.load(answer)["choices"][0]["message"]["content"]
            with urllib.request.urlopen(f"{found[0]}/ui", timeout=20) as page:
                assert b"<html" in page.read().lower()
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=20) == 0
            assert len(children) >= 3
            assert not [child for child in children if Path(f"/proc/{child}").exists()]
        finally:
            process.kill()


def test_a_slo_is_met_by_the_first_token_and_by_the_last() -> None:
    request = _Request(0.0, "tiny", "q", output_tokens=10, ttft_slo_s=1.0)
    assert _Seen(request, ttft_s=0.9, took_s=1.9).met_slo
    assert not _Seen(request, ttft_s=1.1, took_s=1.9).met_slo
    assert not _Seen(request, ttft_s=0.9, took_s=2.1).met_slo
    assert not _Seen(request, ttft_s=0.9, took_s=1.9, error="HTTP 503").met_slo
    assert not _Seen(request).met_slo
