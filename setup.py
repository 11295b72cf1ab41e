"""Packages of the wheel: `configs/` and `tools/` lie in the package there, so that nothing else is called so."""

from setuptools import find_packages, setup

BESIDE = {"trm_jax.configs": "configs", "trm_jax.tools": "tools",
          "trm_jax.tools.torch_reference": "tools/torch_reference"}

setup(packages=[*find_packages(include=["trm_jax*"]), *BESIDE], package_dir=BESIDE)
