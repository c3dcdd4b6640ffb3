"""The readers of corpora with texts to generate: E2E's CSV and WebNLG's XML."""

import os
from pathlib import Path

import pytest

from pipeline.data.readers import READERS
from pipeline.data.readers.webnlg_xml import SKIPPED_ENTRIES, SKIPPED_TEXTS, Options
from pipeline.data.recipe import load_recipe
from pipeline.errors import Problems
from pipeline.tasks.base.row import Row
from tests.support.paths import ROOT

DATA = Path(os.environ.get("DATA_ROOT", ROOT.parent / "shared" / "data")) / "generation"
XML = """<?xml version="1.0" encoding="UTF-8"?>
<benchmark><entries>
  <entry category="Airport" eid="Id1" size="2">
    <originaltripleset><otriple>A | b | C</otriple></originaltripleset>
    <modifiedtripleset>
      <mtriple>Aarhus_Airport | cityServed | "Aarhus, Denmark"</mtriple>
      <mtriple>Aarhus_Airport | runwayName | "10R/28L"</mtriple>
    </modifiedtripleset>
    <lex comment="good" lid="Id1"> Aarhus &amp; its airport. </lex>
    <lex comment="toFix" lid="Id2">Aarhsu.</lex>
    <lex comment="good" lid="Id3">Aarhus Airport serves Aarhus.</lex>
  </entry>
  <entry category="Artist" eid="Id2" size="1">
    <modifiedtripleset><mtriple>Bob | genre | Folk_music</mtriple></modifiedtripleset>
    <lex comment="toFix" lid="Id1">Bob.</lex>
  </entry>
  <entry category="Artist" eid="Id3" size="1">
    <modifiedtripleset><mtriple>Cy | genre | Jazz</mtriple></modifiedtripleset>
    <lex lid="Id1">Cy plays jazz.</lex>
  </entry>
</entries></benchmark>
"""
UNSEEN = Options(unseen_categories=("Artist", "Athlete"))


def read_xml(
    folder: Path, text: str | bytes, options: Options = UNSEEN
) -> tuple[list[Row], Problems]:
    path = folder / "a.xml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    problems = Problems()
    return list(READERS["webnlg_xml"].read(path, options, problems)), problems


def test_e2e_joins_the_references_of_a_representation(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('mr,ref\n"name[A], food[B]",one\nname[C],two\n"name[A], food[B]","th,ree"\n')
    problems = Problems()
    options = READERS["e2e_csv"].options()
    assert list(READERS["e2e_csv"].read(path, options, problems)) == [
        {"where": f"{path}:2", "source": "name[A], food[B]", "references": ["one", "th,ree"]},
        {"where": f"{path}:3", "source": "name[C]", "references": ["two"]},
    ]
    path.write_text("MR,ref\na,b\n")
    assert list(READERS["e2e_csv"].read(path, options, problems)) == []
    assert problems.counts == {"missing-column": 1}


def test_webnlg_makes_a_row_of_each_entry(tmp_path: Path) -> None:
    rows, problems = read_xml(tmp_path, XML)
    assert not len(problems)
    assert problems.skipped == {SKIPPED_TEXTS: 2, SKIPPED_ENTRIES: 1}
    assert [(row.pop("where"), row) for row in rows] == [
        (
            f"{tmp_path}/a.xml:3",
            {
                "source": "Aarhus Airport : cityServed : Aarhus, Denmark | "
                "Aarhus Airport : runwayName : 10R/28L",
                "references": ["Aarhus & its airport.", "Aarhus Airport serves Aarhus."],
                "subset": "seen",
            },
        ),
        (
            f"{tmp_path}/a.xml:17",
            {"source": "Cy : genre : Jazz", "references": ["Cy plays jazz."], "subset": "unseen"},
        ),
    ]
    plain, _ = read_xml(tmp_path, XML, Options())
    assert all("subset" not in row for row in plain)


def test_an_unseen_category_that_no_entry_has_is_a_warning(tmp_path: Path) -> None:
    _, problems = read_xml(tmp_path, XML)
    READERS["webnlg_xml"].check_options(UNSEEN, "ours.yaml", problems)
    (warning,) = problems.kept
    assert "no entry has the category 'Athlete'; use one of Airport, Artist" in str(warning)
    assert problems.counts == {"unmatched-option": 1}


@pytest.mark.parametrize(
    ("text", "kind", "rows"),
    [
        (XML.replace("</entries>", ""), "not-xml", 2),
        (XML[: XML.index('<entry category="Artist" eid="Id3"')], "not-xml", 1),
        ("Aarhus", "not-xml", 0),
        ("", "not-xml", 0),
        (XML.encode("utf-16"), "damaged-file", 0),
        (
            '<!DOCTYPE a [<!ENTITY b "cc"><!ENTITY d "&b;&b;">]>\n' + XML.split("\n", 1)[1],
            "document-type",
            0,
        ),
        ('<!DOCTYPE a SYSTEM "file:///etc/passwd">\n<a/>', "document-type", 0),
    ],
)
def test_a_damaged_or_dangerous_file_is_a_problem(
    text: str | bytes, kind: str, rows: int, tmp_path: Path
) -> None:
    found, problems = read_xml(tmp_path, text)
    assert (len(found), dict(problems.counts), problems.hiding) == (rows, {kind: 1}, 1)
    assert str(problems.kept[0]).startswith(f"{tmp_path}/a.xml:")


@pytest.mark.skipif(not DATA.exists(), reason="needs the corpora of DATA_ROOT/generation")
@pytest.mark.parametrize(
    ("name", "entries", "texts"),
    [("e2e", [4862, 547, 630], [42061, 4672, 4693]), ("webnlg", [6935, 871, 1862], None)],
)
def test_public_corpora_have_their_published_sizes(
    name: str, entries: list[int], texts: list[int] | None
) -> None:
    recipe, problems = load_recipe(ROOT / f"data_recipes/{name}.yaml"), Problems()
    reader, counts, num_texts, subsets = READERS[recipe.reader], [], [], []
    for split in ("train", "validation", "test"):
        rows = [
            row
            for pattern in recipe.files.of(split)
            for path in sorted((DATA / name).glob(pattern))
            for row in reader.read(path, recipe.options, problems)
        ]
        counts.append(len(rows))
        num_texts.append(sum(len(row["references"]) for row in rows))
        subsets.append(sum(row.get("subset") == "unseen" for row in rows))
    assert counts == entries
    assert not len(problems)
    if texts:
        assert num_texts == texts
    else:
        assert subsets == [0, 0, 891]
        reader.check_options(recipe.options, "", problems)
        assert not problems.counts
