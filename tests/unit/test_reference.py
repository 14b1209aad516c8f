import re
from pathlib import Path

import pytest
from pydantic import SecretStr

from fanline import metrics, reference
from fanline.settings import Settings

ROOT = reference.DOCS.parent
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)")
VARIABLE = re.compile(r"\bFANLINE_[A-Z_]+[A-Z]\b")


def markdown_pages() -> list[Path]:
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", sorted(reference.pages()), ids=lambda page: page.name)
def test_the_page_says_what_the_code_says(page: Path) -> None:
    assert page.read_text(encoding="utf-8") == reference.pages()[page], "run: python -m fanline.reference"


def test_every_setting_is_described_by_a_sentence() -> None:
    for name, field in Settings.model_fields.items():
        assert (field.description or "").endswith("."), name


def test_no_setting_has_a_secret_default() -> None:
    for name, field in Settings.model_fields.items():
        default = field.get_default()
        assert not (isinstance(default, SecretStr) and default.get_secret_value()), name


def test_every_metric_is_described_and_follows_the_naming_rules() -> None:
    found = [metric for metric in vars(metrics).values() if hasattr(metric, "_documentation")]
    assert found
    for metric in found:
        assert metric._name.startswith("fanline_")
        assert metric._documentation.endswith(".")
        if metric._type == "histogram":
            assert metric._name.endswith(("_seconds", "_size", "_bytes"))


@pytest.mark.parametrize("page", markdown_pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_a_page_lead_to_files(page: Path) -> None:
    for target in LINK.findall(FENCED.sub("", page.read_text(encoding="utf-8"))):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", markdown_pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_settings_that_a_page_names_exist(page: Path) -> None:
    known = {f"FANLINE_{name.upper()}" for name in Settings.model_fields}
    assert set(VARIABLE.findall(page.read_text(encoding="utf-8"))) <= known
