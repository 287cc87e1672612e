"""Package metadata, read from settings.ini so that it is written once."""

from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

config = ConfigParser(delimiters=["="])
config.read(Path(__file__).with_name("settings.ini"), encoding="utf-8")
settings = config["DEFAULT"]
name = settings["lib_name"]

setup(
    name=name,
    version=settings["version"],
    description=settings["description"],
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author=settings["author"],
    author_email=settings["author_email"],
    url=settings["git_url"],
    license="Apache-2.0",
    keywords=settings["keywords"],
    packages=find_packages(include=[name, f"{name}.*"]),
    python_requires=f">={settings['min_python']}",
    install_requires=settings["requirements"].split(),
    extras_require={
        "dev": settings["dev_requirements"].split(),
        "cluster": settings["cluster_requirements"].split(),
        "meaning": settings["meaning_requirements"].split(),
        "networks": settings["networks_requirements"].split(),
        "scgen": settings["scgen_requirements"].split(),
    },
    entry_points={
        "console_scripts": [settings["console_scripts"]],
        "nbdev": [f"{name}={name}._modidx:d"],
    },
)
