"""The package's door leads to working things. (ruff sees to a sorted `__all__` that names only what is there.)"""

from __future__ import annotations

from pathlib import Path

import zeta


def test_every_public_name_of_zeta_can_be_had() -> None:
    assert [name for name in zeta.__all__ if not hasattr(zeta, name)] == []


def test_build_info_names_version_compiler_flags_and_cpu_features() -> None:
    info = zeta.build_info()
    assert info["version"] == zeta.__version__
    assert set(info) == {"version", "compiler", "flags", "cpu_features"}
    assert "-ffp-contract=off" in info["flags"]
    assert "-march" not in info["flags"]
    assert set(info["cpu_features"]) == {"avx2", "avx512f", "neon", "sve"}


def test_get_include_names_a_directory_with_the_headers() -> None:
    assert (Path(zeta.get_include()) / "zeta" / "core" / "time.hpp").is_file()
