"""Claims about settings: what is accepted, what is refused, and how the refusal reads."""

from __future__ import annotations

import builtins
import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

import zeta
from zeta import config
from zeta.errors import ConfigError, MissingExtraError

FULL = """
[scheduler]
policy = "water-fill"
promise_ms = 20000
max_queued = 100000
[[models]]
name = "qwen2.5-14b"
quality = 0.70
device = "gpu0"
[[models.replicas]]
name = "14b-0"
url = "http://127.0.0.1:8001/v1"
engine = "vllm"
max_in_flight = 64
[[devices]]
name = "gpu0"
kind = "h200-sxm-141gb"
colocation = "timeslice"
[[tenants]]
name = "acme"
weight = 2.0
"""

FULL_YAML = """
scheduler: {policy: water-fill, promise_ms: 20000, max_queued: 100000}
models:
  - name: qwen2.5-14b
    quality: 0.70
    device: gpu0
    replicas:
      - {name: 14b-0, url: "http://127.0.0.1:8001/v1", engine: vllm, max_in_flight: 64}
devices:
  - {name: gpu0, kind: h200-sxm-141gb, colocation: timeslice}
tenants:
  - {name: acme, weight: 2.0}
"""


def refusal(text: str, env: dict[str, str] | None = None) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        config.loads(text, env=env)
    return caught.value


def edited(old: str, new: str) -> str:
    assert old in FULL
    return FULL.replace(old, new, 1)


def test_a_file_becomes_frozen_values() -> None:
    fleet = config.loads(FULL)
    assert fleet.models == (
        zeta.Model(
            "qwen2.5-14b",
            0.7,
            device="gpu0",
            replicas=(zeta.Replica("14b-0", url="http://127.0.0.1:8001/v1", engine="vllm"),),
        ),
    )
    assert fleet.tenants == (zeta.Tenant("acme", 2.0),)
    with pytest.raises(dataclasses.FrozenInstanceError):
        fleet.scheduler.policy = "even"  # type: ignore[misc]


def test_toml_and_yaml_say_the_same() -> None:
    pytest.importorskip("yaml", reason="YAML comes with the extra 'cli'")
    assert config.loads(FULL_YAML, kind="yaml") == config.loads(FULL)


def test_lists_stand_for_tuples_when_built_from_python() -> None:
    model = zeta.Model("a", 1, replicas=[zeta.Replica("a-0")])  # type: ignore[arg-type]
    assert model.replicas == (zeta.Replica("a-0"),)
    assert isinstance(model.quality, float)


@pytest.mark.parametrize(
    ("text", "key", "nearest"),
    [
        (edited("policy =", "polcy ="), "scheduler.polcy", "policy"),
        (edited("[[tenants]]", "[[tenant]]"), "tenant", "tenants"),
        (edited("max_in_flight", "max-inflight"), "models[0].replicas[0].max-inflight", "max_in_flight"),
        (edited('kind = "h200', 'knid = "h200'), "devices[0].knid", "kind"),
        (edited('"water-fill"', '"waterfill"'), "scheduler.policy", "water-fill"),
        (edited('"timeslice"', '"time-slice"'), "devices[0].colocation", "timeslice"),
        (edited('device = "gpu0"', 'device = "gpu-0"'), "models[0].device", "gpu0"),
    ],
)
def test_a_misspelt_word_is_an_error_that_names_the_nearest(text: str, key: str, nearest: str) -> None:
    error = refusal(text)
    assert (error.key, error.nearest) == (key, nearest)
    assert key in str(error)
    assert f"did you mean '{nearest}'?" in str(error)


@pytest.mark.parametrize(
    ("old", "new", "key", "said"),
    [
        ("quality = 0.70", "quality = 1.5", "models[0].quality", ">= 0 and <= 1"),
        ("quality = 0.70", "quality = nan", "models[0].quality", "nan"),
        ("quality = 0.70", 'quality = "high"', "models[0].quality", "a number in probability"),
        ("quality = 0.70", "quality = true", "models[0].quality", "a number"),
        ("quality = 0.70", "", "models[0].quality", "is missing"),
        ("max_queued = 100000", "max_queued = 0", "scheduler.max_queued", ">= 1 requests"),
        ("max_queued = 100000", "max_queued = 1.5", "scheduler.max_queued", "a whole number in requests"),
        ("weight = 2.0", "weight = 0", "tenants[0].weight", ">= 1e-06"),
        ("weight = 2.0", "weight = -1", "tenants[0].weight", ">= 1e-06"),
        ('name = "acme"', 'name = ""', "tenants[0].name", "a name that is not empty"),
        ('name = "acme"', "name = 3", "tenants[0].name", "text"),
        ('url = "http:', 'url = "tcp:', "models[0].replicas[0].url", "starts with http://"),
        ("[[devices]]", "[devices]", "devices", "[[devices]]"),
        ("[scheduler]", "[[scheduler]]", "scheduler", "a table"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_with_its_path(old: str, new: str, key: str, said: str) -> None:
    error = refusal(edited(old, new))
    assert error.key == key
    assert said in str(error)


def test_a_name_used_twice_is_refused() -> None:
    error = refusal(FULL + '[[tenants]]\nname = "acme"\n')
    assert "'acme' is used 2 times" in str(error)


def test_replica_names_are_unique_over_all_models() -> None:
    twin = '[[models]]\nname = "other"\nquality = 0.5\n[[models.replicas]]\nname = "14b-0"\n'
    assert "'14b-0' is used 2 times" in str(refusal(FULL + twin))


def test_a_model_without_a_replica_is_refused() -> None:
    assert "has no replica" in str(refusal('[[models]]\nname = "a"\nquality = 0.5\n'))


def test_a_file_without_models_is_refused() -> None:
    assert "at least one [[models]]" in str(refusal(""))


def test_more_models_than_the_core_has_bits_are_refused() -> None:
    models = tuple(zeta.Model(f"m{index}", 0.5) for index in range(33))
    with pytest.raises(ConfigError, match="33 given; at most 32"):
        config.Config(models=models)


def test_values_built_from_python_are_checked_alike() -> None:
    with pytest.raises(ConfigError, match=r"Model.quality = 7.0; expected >= 0 and <= 1") as caught:
        zeta.Model("a", 7)
    assert isinstance(caught.value, ValueError)


def test_the_environment_wins_over_the_file() -> None:
    env = {
        "ZETA_SCHEDULER__POLICY": "even",
        "ZETA_SCHEDULER__TICK_INTERVAL_MS": "200",
        "ZETA_MODELS__0__QUALITY": "0.25",
        "ZETA_MODELS__0__REPLICAS__0__MAX_IN_FLIGHT": "8",
        "ZETA_LOG": "debug",
        "HOME": "/root",
    }
    fleet = config.loads(FULL, env=env)
    assert (fleet.scheduler.policy, fleet.scheduler.tick_interval_ms) == ("even", 200.0)
    assert (fleet.models[0].quality, fleet.models[0].replicas[0].max_in_flight) == (0.25, 8)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("ZETA_SCHEDULER__POLCY", "even", "did you mean 'policy'?"),
        ("ZETA_SCHEDULR__POLICY", "even", "did you mean 'scheduler'?"),
        ("ZETA_SCHEDULER__MAX_QUEUED", "many", "a whole number"),
        ("ZETA_MODELS__3__QUALITY", "0.5", "an index from 0 to 0"),
        ("ZETA_MODELS__0__NAME__X", "0.5", "a plain value"),
    ],
)
def test_a_variable_that_fits_nothing_is_refused(name: str, value: str, said: str) -> None:
    assert said in str(refusal(FULL, env={name: value}))


def test_load_names_the_file(tmp_path: Path) -> None:
    file = tmp_path / "zeta.toml"
    file.write_text(edited("policy =", "polcy ="))
    with pytest.raises(ConfigError, match=r"zeta\.toml: scheduler\.polcy"):
        config.load(file, env={})


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("absent.toml", None, "cannot read .*No such file"),
        ("zeta.ini", b"", "expected .toml, .yaml or .yml"),
        ("zeta.toml", b"[scheduler", "not TOML: "),
        ("zeta.toml", b"\xff\xfe", "not UTF-8"),
        ("zeta.yaml", b"a: [", "not YAML"),
        ("zeta.yaml", b"- 1", "expected a table"),
    ],
)
def test_a_file_that_cannot_be_read_is_a_config_error(
    tmp_path: Path, name: str, content: bytes | None, said: str
) -> None:
    if name.endswith("yaml"):
        pytest.importorskip("yaml", reason="YAML comes with the extra 'cli'")
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=said):
        config.load(tmp_path / name, env={})


def test_yaml_without_its_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def without_yaml(name: str, *args: object, **rest: object) -> object:
        if name == "yaml":
            raise ImportError(name)
        return real_import(name, *args, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without_yaml)
    with pytest.raises(MissingExtraError, match=r"zeta-router\[cli\]"):
        config.loads(FULL_YAML, kind="yaml")


def test_every_setting_has_a_reason_and_every_number_a_unit_or_bounds() -> None:
    for part in (config.Scheduler, config.Model, config.Replica, config.Device, config.Tenant, config.Config):
        for field in dataclasses.fields(part):
            assert field.metadata["why"], f"{part.__name__}.{field.name} says no reason"
            if isinstance(field.default, int | float):
                has_bounds = field.metadata["low"] is not None
                assert field.metadata["unit"] or has_bounds, f"{part.__name__}.{field.name} says no unit"


def test_the_default_fleet_is_three_models_in_ascending_quality_on_one_device() -> None:
    fleet = config.default_fleet()
    assert [model.name for model in fleet.models] == ["small", "mid", "large"]
    assert sorted(fleet.models, key=lambda model: model.quality) == list(fleet.models)
    assert {model.device for model in fleet.models} == {"gpu0"}
    assert [model.engine_model for model in fleet.models] == ["qwen2.5-7b", "llama-3.1-8b", "qwen2.5-14b"]


def test_importing_zeta_stays_light() -> None:
    script = (
        "import sys, numpy; before = set(sys.modules); import zeta; "
        "print(*sorted({m.split('.')[0] for m in set(sys.modules) - before}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    heavy = {"rich", "plotly", "pyarrow", "yaml", "onnxruntime", "pynvml", "asyncio", "tomllib", "pandas", "scipy"}
    assert not heavy & set(done.stdout.split())


GATEWAY = """
[[models]]
name = "m"
quality = 0.5
aliases = ["gpt-4o"]
[[models.replicas]]
name = "r"
"""


def test_a_gateway_that_others_can_reach_needs_a_key() -> None:
    with pytest.raises(ConfigError, match=r"serve\.host = '0\.0\.0\.0'; expected a loopback address, or at least one"):
        config.loads(f"[serve]\nhost = '0.0.0.0'\n{GATEWAY}")
    open_to_all = config.loads(f"[serve]\nhost = '0.0.0.0'\n[[serve.keys]]\ntenant = 'a'\nenv = 'KEY'\n{GATEWAY}").serve
    assert (open_to_all.host, open_to_all.keys[0].tenant) == ("0.0.0.0", "a")
    for host in ("localhost", "::1", "127.0.0.2"):
        assert config.loads(f"[serve]\nhost = '{host}'\n{GATEWAY}").serve.host == host


@pytest.mark.parametrize("key", ["", "sha256 = 'ab'", f"sha256 = '{'g' * 64}'", f"sha256 = '{'a' * 64}'\nenv = 'KEY'"])
def test_a_key_is_a_hash_or_a_variable(key: str) -> None:
    with pytest.raises(ConfigError, match=r"serve\.keys\[0\]\.sha256"):
        config.loads(f"[[serve.keys]]\ntenant = 'a'\n{key}\n{GATEWAY}")


def test_names_of_models_mean_one_model() -> None:
    with pytest.raises(ConfigError, match=r"the name 'gpt-4o' is used 2 times"):
        config.loads(GATEWAY + GATEWAY.replace('"m"', '"n"').replace('"r"', '"s"'))
    with pytest.raises(ConfigError, match=r"models\[0\]\.fallbacks names 'x', which is no model"):
        config.loads(GATEWAY.replace("aliases", "fallbacks = ['x']\naliases"))
