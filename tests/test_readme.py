"""What a newcomer reads first: short, with links that lead somewhere and commands that work."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from reference_model.__main__ import main
from reference_model.checkpoints import REFERENCE_FOLDER, load
from reference_model.export import save_huggingface

MOST_BYTES = 8192
LINK = re.compile(r"\]\((?!https?:)(?P<path>[^)#\s]*)(?:#(?P<heading>[^)\s]+))?\)")
BLOCK = re.compile(r"```\w+\n(.*?)\n```", re.DOTALL)


def section(path: Path, heading: str) -> str:
    text = path.read_text(encoding="utf-8")
    return text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def anchors(path: Path) -> set[str]:
    """The names by which GitHub links to a page's headings."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_has_eight_kilobytes_at_most(root: Path) -> None:
    assert len((root / "README.md").read_bytes()) <= MOST_BYTES


def test_every_link_of_every_page_leads_to_a_file_and_its_heading(
    root: Path, repository_files: list[Path]
) -> None:
    count, broken = 0, []
    for page in (path for path in repository_files if path.suffix == ".md"):
        for link in LINK.finditer(page.read_text(encoding="utf-8")):
            target = (page.parent / link["path"]).resolve() if link["path"] else page
            count += 1
            if not target.exists() or (link["heading"] and link["heading"] not in anchors(target)):
                broken.append(f"{page.relative_to(root)}: {link[0]}")
    assert broken == []
    assert count > 60


def test_the_warning_of_cuda_stands_before_the_first_command(root: Path) -> None:
    text = (root / "README.md").read_text(encoding="utf-8")
    places = [text.index(part) for part in ("gigabytes of CUDA", "git clone", "make setup")]
    assert [*places, text.index("make report")] == sorted([*places, text.index("make report")])


# ---- your model, your repository


@pytest.fixture(scope="module")
def gpt2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 folder in Hugging Face's layout, with a tokenizer."""
    folder = tmp_path_factory.mktemp("model") / "gpt2"
    save_huggingface(load(REFERENCE_FOLDER), folder)
    shutil.copy(REFERENCE_FOLDER / "tokenizer.json", folder)
    return folder


def own_model(root: Path, folder: Path) -> list[str]:
    """The arguments of the README's second command, with ``folder`` for FOLDER."""
    (commands,) = BLOCK.findall(section(root / "README.md", "Your model"))
    report, command = commands.splitlines()
    assert report == "make report MODEL=FOLDER"  # test_makefile.py, test_subjects.py
    words = shlex.split(command)
    assert words[:3] == [".venv/bin/python", "-m", "reference_model"]
    return [str(folder) if word == "FOLDER" else word for word in words[3:]]


def test_a_model_of_ones_own_is_read_as_the_readme_says(
    root: Path, gpt2_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(own_model(root, gpt2_folder)) == 0
    said = capsys.readouterr().out
    assert said.startswith("The")
    assert len(said.split()) > 5


def test_another_family_is_refused_by_name_as_the_readme_says(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gemma"}', encoding="utf-8")
    assert main(own_model(root, tmp_path)) == 2
    assert "'gemma'" in capsys.readouterr().err


def test_the_gate_of_ones_own_repository_is_the_guides_which_a_test_follows(root: Path) -> None:
    short = BLOCK.findall(section(root / "README.md", "Your repository"))
    guide = section(root / "reports/gate/README.md", "How to gate your own repository")
    lines = [line for block in short for line in block.splitlines()]
    assert len(lines) == 3
    followed = [line.removesuffix(' || echo "exit status $?"') for line in guide.splitlines()]
    assert [line for line in lines if line not in followed] == []
