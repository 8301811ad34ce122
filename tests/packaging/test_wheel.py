"""The wheel in dist/, unpacked and installed where nothing else is. `make wheel` builds it and runs this."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.wheel

ROOT = Path(__file__).resolve().parents[2]


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Standard output of a command that must succeed, without the checkout on any path."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel() -> Path:
    (found,) = (ROOT / "dist").glob("zeta_router-*.whl")
    return found


@pytest.fixture(scope="module")
def unpacked(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(directory)
    return directory


@pytest.fixture(scope="module")
def empty_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a fresh environment that holds the wheel and what it requires, nothing else."""
    directory = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", directory)
    python = directory / "bin" / "python"
    run(python, "-m", "pip", "-qq", "install", wheel)
    return python


def test_the_wheel_holds_the_package_the_headers_and_the_cmake_files_and_no_more(unpacked: Path) -> None:
    files = {str(path.relative_to(unpacked)) for path in unpacked.rglob("*") if path.is_file()}
    held = {name for name in files if ".dist-info/" not in name}
    tracked = run("git", "ls-files", "python/zeta", "csrc/include/zeta", cwd=ROOT).splitlines()
    expected = {name.replace("csrc/", "zeta/").removeprefix("python/") for name in tracked}
    cmake = {"zeta/cmake/zetaConfig.cmake", "zeta/cmake/zetaConfigVersion.cmake"}
    (extension,) = (name for name in held if re.fullmatch(r"zeta/_core\.cpython-\d+-\w+-linux-gnu\.so", name))
    assert held == expected | cmake | {extension}
    assert "zeta/py.typed" in held
    assert any(name.endswith("dist-info/licenses/LICENSE") for name in files)


def test_the_extension_is_stripped_and_names_no_path_of_the_building_machine(unpacked: Path) -> None:
    (extension,) = unpacked.glob("zeta/_core.*.so")
    binary = extension.read_bytes()
    assert b".debug_info" not in binary
    assert b".symtab" not in binary
    named = re.findall(
        rb"[\x21-\x7e]*(?:/home/|/root/|/tmp/|/opt/|/build/|/usr/include/|site-packages)[\x21-\x7e]*", binary
    )
    assert named == []
    assert str(ROOT).encode() not in binary


def test_only_functions_named_after_a_vector_unit_use_one_outside_the_platform_baseline() -> None:
    (unstripped,) = (ROOT / "build" / "isolated").glob("_core.*.so")  # it still has its functions' names
    code = run("objdump", "--disassemble", "--demangle", "--no-show-raw-insn", unstripped)
    functions = dict(text.partition(":\n")[::2] for text in re.split(r"\n(?=[0-9a-f]+ <)", code))
    assert any("bind_build_info" in name for name in functions)
    wide = {name for name, body in functions.items() if re.search(r"%[yz]mm\d|\bz\d+\.[bhsd]\b", body)}
    assert {name for name in wide if not re.search("avx|sve", name)} == set()


def test_in_an_empty_environment_the_wheel_imports_and_is_what_it_says(empty_python: Path, tmp_path: Path) -> None:
    run(empty_python, "-m", "pip", "check")
    code = "import zeta; print(zeta.__file__); print(zeta.build_info()['flags'])"
    where, flags = run(empty_python, "-W", "error", "-c", code, cwd=tmp_path).splitlines()
    assert "site-packages" in where
    assert "-march" not in flags


def test_a_cpp_program_builds_against_the_wheel_alone(empty_python: Path, tmp_path: Path) -> None:
    cmake_dir = run(empty_python, "-c", "import zeta; print(zeta.get_cmake_dir())", cwd=tmp_path).strip()
    build = tmp_path / "build"
    run("cmake", "-S", ROOT / "examples" / "cpp", "-B", build, f"-Dzeta_DIR={cmake_dir}")
    run("cmake", "--build", build)
    order = [line.split("ms")[1].split("starts")[0].strip() for line in run(build / "schedule").splitlines()]
    assert order == ["long document", "chat", "batch"]


def test_a_cpp_program_builds_with_get_include_alone(empty_python: Path, tmp_path: Path) -> None:
    include = run(empty_python, "-c", "import zeta; print(zeta.get_include())", cwd=tmp_path).strip()
    source = ROOT / "examples" / "cpp" / "schedule.cpp"
    program = tmp_path / "schedule"
    run("g++", "-std=c++20", "-I", include, source, "-o", program)
    assert "starts" in run(program)
