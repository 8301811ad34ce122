"""Where the wheel keeps what C++ programs need: headers and the CMake package."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_CHECKOUT_HEADERS = _PACKAGE.parent.parent / "csrc" / "include"


def get_include() -> str:
    """Directory to put on a C++ compiler's include path for ``#include "zeta/…"``.

    Returns
    -------
    str
        An absolute path; inside the installed package, or ``csrc/include`` when zeta is imported from its checkout.

    Raises
    ------
    FileNotFoundError
        If neither is there, which means that the installation is incomplete.
    """
    for headers in (_PACKAGE / "include", _CHECKOUT_HEADERS):
        if (headers / "zeta" / "core").is_dir():
            return str(headers)
    raise FileNotFoundError(f"no headers below {_PACKAGE / 'include'}: reinstall zeta-router from a wheel or its sdist")


def get_cmake_dir() -> str:
    """Directory for ``-Dzeta_DIR=`` or ``CMAKE_PREFIX_PATH``, so that ``find_package(zeta)`` works.

    Returns
    -------
    str
        An absolute path inside the installed package.

    Raises
    ------
    FileNotFoundError
        If zeta is imported from its checkout; there ``add_subdirectory`` serves, or install the wheel.
    """
    config = _PACKAGE / "cmake"
    if (config / "zetaConfig.cmake").is_file():
        return str(config)
    raise FileNotFoundError(
        f"no zetaConfig.cmake in {config}: install the wheel (pip install zeta-router), "
        "or use add_subdirectory() on a checkout"
    )
