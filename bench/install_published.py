#!/usr/bin/env python3
"""Install the releases of the published package that the tests run, each into an environment of its own under bench/."""

from __future__ import annotations

import environment
from rivals.published import VERSIONS, environment_name, requirements


def main() -> None:
    for version in VERSIONS:
        print(environment.interpreter(environment_name(version), requirements(version)))


if __name__ == "__main__":
    main()
