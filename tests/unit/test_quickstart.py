"""What the quickstart reads and how it shows answers, without a server."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest

from ragstore.exceptions import DependencyMissing, InvalidInput, InvalidQuery, InvalidText
from ragstore.quickstart import check_questions, corpus, require_extras, terminal
from ragstore.quickstart.corpus import PASSAGE, read_files, read_reference
from ragstore.search.result import Hit, SearchResult


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return a directory of texts of every kind, readable and not."""
    files = {
        "b.md": b"---\nowner: me\n---\n\n# The *guide* #\n\nSome text.",
        "a.txt": b"\xef\xbb\xbf\n=====\nA plain file\n=====\nwith text",
        "sub/c.RST": b"Heading\n=======\n\nBody",
        "sub/d.markdown": b"no heading here",
        "nul.txt": b"one\0two\0",
        "empty.md": b"",
        "blank.txt": b" \n\x1c\t",
        "latin.txt": b"caf\xe9",
        "code.py": b"print()",
        ".hidden.md": b"hidden",
        ".git/e.md": b"hidden",
    }
    for name, content in files.items():
        path = tmp_path / "docs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "docs"


def test_reference() -> None:
    """The language reference is a document for each topic, titled and split into passages."""
    read = read_reference()
    titles = {document.key: document.title for document in read.documents}

    assert len(read.documents) > 70
    assert titles["try"] == 'The "try" statement'
    assert read.passages > 400
    assert max(len(str(text)) for document in read.documents for text in document.chunks) <= PASSAGE
    assert read.notes == ()


def test_directory(tree: Path) -> None:
    """Files of the known kinds are read in order, below directories too; keys are relative."""
    read = read_files([tree])

    assert {document.key: document.title for document in read.documents} == {
        "docs/a.txt": "A plain file",
        "docs/b.md": "The *guide*",
        "docs/nul.txt": "onetwo",
        "docs/sub/c.RST": "Heading",
        "docs/sub/d.markdown": "no heading here",
    }
    assert [document.key for document in read.documents] == sorted(
        document.key for document in read.documents
    )


def test_notes(tree: Path) -> None:
    """What was left out or changed is named, with the reason."""
    notes = [note.removeprefix(f"{tree}/") for note in read_files([tree]).notes]

    assert notes == [
        "blank.txt: skipped, it is empty",
        "empty.md: skipped, it is empty",
        "latin.txt: skipped, it is not UTF-8",
        "nul.txt: read without its 2 NUL bytes, which Postgres cannot store",
    ]


def test_keys_do_not_depend_on_the_directory(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same path has the same keys wherever the command runs, and however it is written."""
    there = [document.key for document in read_files([tree]).documents]
    monkeypatch.chdir(tree)
    here = [document.key for document in read_files([Path()]).documents]
    twice = [document.key for document in read_files([Path("../docs"), tree]).documents]

    assert here == there == twice


def test_file(tree: Path) -> None:
    """A single file has its name for a key."""
    assert [document.key for document in read_files([tree / "b.md"]).documents] == ["b.md"]


def test_same_key_twice(tree: Path) -> None:
    """Two files that would be one document are refused, both named."""
    other = tree / "sub" / "b.md"
    other.write_text("another")

    with pytest.raises(InvalidInput, match=r"docs/b\.md and .*sub/b\.md would both be .*'b\.md'"):
        read_files([tree / "b.md", other])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing", "no file or directory '.*missing'"),
        ("code.py", r"'.*code\.py' is not read: the quickstart takes \.md, "),
        ("empty.md", r"nothing to read in .*empty\.md.*\n  - .*empty\.md: skipped, it is empty"),
        ("latin.txt", r"nothing to read in .*\n  - .*latin\.txt: skipped, it is not UTF-8"),
        (".git/none", "no file or directory"),
    ],
)
def test_bad_paths(tree: Path, name: str, message: str) -> None:
    """A path that cannot be used is named, and so is the reason."""
    with pytest.raises(InvalidInput, match=message):
        read_files([tree / name])


def test_directory_without_texts(tree: Path) -> None:
    """A directory without any text is an error, not an empty collection."""
    (tree / "none").mkdir()

    with pytest.raises(InvalidInput, match=r"nothing to read in .*none: .* \.rst files of UTF-8$"):
        read_files([tree / "none"])


def test_what_the_system_refuses(tree: Path) -> None:
    """A broken link and a name that is not UTF-8 are noted; the rest is read."""
    (tree / "broken.md").symlink_to("nowhere")
    Path(os.fsdecode(bytes(tree) + b"/caf\xe9.md")).write_text("named in Latin-1")
    notes = "\n".join(read_files([tree]).notes)

    assert "broken.md: skipped, No such file or directory" in notes
    assert "caf\ufffd.md: skipped, its name is not UTF-8" in notes


def test_unreadable_directory(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that cannot be listed is noted."""
    usual = os.scandir

    def scandir(path: str) -> object:
        if str(path).endswith("sub"):
            raise PermissionError(13, "Permission denied", str(path))
        return usual(path)

    monkeypatch.setattr(os, "scandir", scandir)
    read = read_files([tree])

    assert f"{tree / 'sub'}: skipped, Permission denied" in read.notes
    assert "docs/sub/c.RST" not in {document.key for document in read.documents}


def test_markdown_is_split_at_headings() -> None:
    """Markdown goes by its structure, so a section is not torn for the sake of a full passage."""
    section = "word " * 150
    text = f"# One\n\n{section}\n\n# Two\n\n{section}"
    document = corpus._document("k", text, ".md")

    assert document is not None
    assert [str(chunk)[:5] for chunk in document.chunks] == ["# One", "# Two"]


@pytest.mark.parametrize("module", ["wordllama", "semantic_text_splitter"])
def test_missing_extra(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the model or the splitter the error says what to install."""
    monkeypatch.setitem(sys.modules, module, None)
    assert importlib.util.find_spec(module) is None

    with pytest.raises(DependencyMissing, match=r'pip install "ragstore\[local\]"'):
        require_extras()


@pytest.mark.parametrize(
    ("question", "error"), [("", InvalidQuery), (" \n", InvalidQuery), ("a\udcff", InvalidText)]
)
def test_bad_questions(question: str, error: type[Exception]) -> None:
    """A question that cannot be asked is refused before anything is done."""
    with pytest.raises(error):
        check_questions(["what is this", question])


# --- answers -----------------------------------------------------------------------------------


def hit(key: str, text: str, ordinal: int = 0) -> Hit:
    """Return a hit of which only the source and the text matter."""
    return Hit(0.5, key, None, 1, ordinal, text, {}, 1, 0.5, None, None)


def test_snippet_shows_where_the_words_are() -> None:
    """Of a long passage the part is shown that has most of the question's words, cut at words."""
    text = "lorem ipsum dolor " * 30 + "you catch exceptions so " + "sit amet " * 30
    shown = terminal._snippet(text, "how do I catch an exception")

    assert "you catch exceptions so" in shown.plain
    assert shown.plain.startswith("… ")
    assert shown.plain.endswith(" …")
    assert len(shown.plain) <= terminal.SNIPPET + 4
    bold = {shown.plain[span.start : span.end] for span in shown.spans}
    assert bold == {"catch", "exceptions"}


@pytest.mark.parametrize("question", ["", "is it a", "?? (", "[bold]x", "x" * 500])
def test_snippet_of_any_question(question: str) -> None:
    """Whatever is asked, a short passage is shown whole."""
    assert terminal._snippet("a short [passage]", question).plain == "a short [passage]"


def test_snippet_of_one_long_word() -> None:
    """A passage without any space is cut all the same."""
    assert terminal._snippet("x" * 900, "what").plain == "x" * 200 + " …"


def test_folded() -> None:
    """White space becomes one space, and what underlines a heading goes."""
    assert terminal._folded("Title\n=====\n\n  a -- b\t...\n-----") == "Title a -- b ..."


def test_equal_passages_are_shown_once() -> None:
    """Passages that differ in nothing but their rules are one answer with two sources."""
    hits = [hit("compound", "Try\n---- x", 8), hit("other", "y"), hit("try", "Try\n==== x", 1)]
    gathered = terminal._by_text(SearchResult(hits, strategy="hybrid", reason=""))

    assert [text for text, _ in gathered] == ["Try x", "y"]
    assert terminal._sources(gathered[0][1]).plain == "compound #8\nalso try #1"


def test_count() -> None:
    """Numbers are said as people say them."""
    assert [terminal._count(n, "word") for n in (0, 1, 1200)] == [
        "0 words",
        "1 word",
        "1,200 words",
    ]
