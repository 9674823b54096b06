"""The packages of setup.cfg, and the recipes of configs/ as data of the package: hms_dist/configs."""

from setuptools import find_packages, setup

RECIPES = "hms_dist.configs"

setup(
    packages=[*find_packages(include=["hms_dist", "hms_dist.*"]), RECIPES],
    package_dir={RECIPES: "configs"},
    package_data={RECIPES: ["*/*.yaml"], "hms_dist.report": ["templates/*"]},
)
